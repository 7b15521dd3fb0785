package main

import "strings"

// command is what the runtime is told to do, as runc reads its command line:
// options of its own, the name, options of the command, the container.
type command struct {
	name   string
	bundle string
	id     string
	log    string
}

// parse finds out as much about a command line as is needed here. Of those that
// it does not know it returns what leaves everything to runc.
func parse(args []string) command {
	c := command{log: option(args, "--log")}
	for n, arg := range args {
		if arg != "create" && arg != "delete" {
			continue
		}
		id := args[len(args)-1]
		if n == len(args)-1 || !isContainer(id) {
			return c
		}
		c.name, c.id, c.bundle = arg, id, option(args[n:], "--bundle")
		return c
	}
	return c
}

// option returns the value of an option in either of its forms.
func option(args []string, name string) string {
	for n, arg := range args {
		if value, ok := strings.CutPrefix(arg, name+"="); ok {
			return value
		}
		if arg == name && n+1 < len(args) {
			return args[n+1]
		}
	}
	return ""
}

// isContainer tells whether it is the id of a container of the engine: 64 digits.
func isContainer(id string) bool {
	return len(id) == 64 && strings.Trim(id, "0123456789abcdef") == ""
}
