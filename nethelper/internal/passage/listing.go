package passage

import (
	"slices"
	"strings"

	"honeysens.org/dockersensor/nethelper/internal/nft"
)

// table reads the listing, a rule for each line; other lines are rules of no
// chain.
func (rules listing) table(cfg Config) table {
	t := table{cfg: cfg, rules: make([]nft.ForeignRule, len(rules))}
	for i, line := range rules {
		if words := strings.Fields(line); len(words) > 2 && words[0] == "-A" {
			t.rules[i] = parseLine(words[1], words[2:])
		}
	}
	return t
}

// parseLine reads a rule as "iptables -S" writes it. What it does not know is a
// condition.
func parseLine(chain string, words []string) nft.ForeignRule {
	rule := nft.ForeignRule{Chain: chain}
	not := false
	for len(words) > 0 {
		option, value := words[0], ""
		if words = words[1:]; len(words) > 0 {
			value = words[0]
		}
		switch option {
		case "!":
			not = true
			continue
		case "-j", "-g":
			rule.Verdict, rule.Jumps = parseTarget(value)
			return rule
		case "-i", "-o":
			name, prefix := strings.CutSuffix(value, "+")
			rule.On = append(rule.On, nft.OnInterface{Out: option == "-o", Not: not, Name: name, Prefix: prefix})
		case "-p":
			rule.Conditional = rule.Conditional || not || value != "tcp" && value != "udp"
		case "--ctstate", "--state":
			rule.Conditional = rule.Conditional || not || !slices.Contains(strings.Split(value, ","), "NEW")
		case "--comment":
			rule.Comment, words = value, words[commentWords(words):]
			continue
		case "-m":
			// What the extension looks at are options of their own.
		default:
			rule.Conditional = true
			continue
		}
		not = false
		words = words[min(1, len(words)):]
	}
	return rule
}

// commentWords is how many words a comment has: it is in quotes when it has
// spaces, and quotes within it have a backslash.
func commentWords(words []string) int {
	if len(words) == 0 || !strings.HasPrefix(words[0], `"`) {
		return min(1, len(words))
	}
	for i, word := range words {
		if strings.HasSuffix(word, `"`) && !strings.HasSuffix(word, `\"`) && (i > 0 || len(word) > 1) {
			return i + 1
		}
	}
	return len(words)
}

// parseTarget reads what comes after -j. Targets are in capitals, as Docker's
// chains are; a chain that does not exist leads nowhere.
func parseTarget(target string) (nft.Verdict, string) {
	switch target {
	case "DROP", "REJECT":
		return nft.Blocks, ""
	case "ACCEPT":
		return nft.Accepts, ""
	case "RETURN":
		return nft.Returns, ""
	default:
		return nft.GoesOn, target
	}
}
