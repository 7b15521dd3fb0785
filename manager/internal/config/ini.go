package config

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// item is a key of a section. A nil value is a bare key: unset.
type item struct {
	key   string
	value *string
}

type section struct {
	name  string
	items []item
}

// document is INI text in the order of the file. Keys are lower case.
type document struct {
	sections []section
}

// iniReader follows configparser._read of Python 3.11 with allow_no_value and
// without interpolation. The lines of a value are collected and joined at its
// end, since trailing empty lines do not belong to it.
type iniReader struct {
	doc    *document
	lines  []string
	bare   bool
	inItem bool
	indent int
}

// parseINI reads INI text as Python's RawConfigParser does.
func parseINI(text string) (*document, error) {
	if !utf8.ValidString(text) {
		return nil, fmt.Errorf("not UTF-8 text")
	}
	r := iniReader{doc: &document{}}
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
	number := 0
	for line := range strings.SplitSeq(text, "\n") {
		number++
		if err := r.line(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
	}
	r.endItem()
	return r.doc, nil
}

func (r *iniReader) line(line string) error {
	value := strip(line)
	if value == "" {
		r.more("")
		return nil
	}
	if value[0] == '#' || value[0] == ';' {
		return nil
	}
	indent := len([]rune(line)) - len([]rune(strings.TrimLeftFunc(line, isSpace)))
	if r.inItem && indent > r.indent {
		if r.bare {
			return fmt.Errorf("an unset key is continued")
		}
		r.more(value)
		return nil
	}
	r.indent = indent
	if end := strings.LastIndexByte(value, ']'); value[0] == '[' && end > 1 {
		return r.header(value[1:end])
	}
	return r.option(value)
}

// more adds a line to the value that is being read, if there is one.
func (r *iniReader) more(line string) {
	if r.inItem && !r.bare {
		r.lines = append(r.lines, line)
	}
}

func (r *iniReader) header(name string) error {
	r.endItem()
	if name == "DEFAULT" {
		return fmt.Errorf("section DEFAULT: no HoneySens server writes one")
	}
	if r.doc.find(name) != nil {
		return fmt.Errorf("section %.40q appears twice", name)
	}
	r.doc.sections = append(r.doc.sections, section{name: name})
	return nil
}

func (r *iniReader) option(line string) error {
	r.endItem()
	if len(r.doc.sections) == 0 {
		return fmt.Errorf("text before the first section")
	}
	key, value, found := cutDelimiter(line)
	key = strings.ToLower(strings.TrimRightFunc(key, isSpace))
	if key == "" {
		return fmt.Errorf("a value without a key")
	}
	current := &r.doc.sections[len(r.doc.sections)-1]
	if current.find(key) != nil {
		return fmt.Errorf("key %.40q appears twice in section %.40q", key, current.name)
	}
	current.items = append(current.items, item{key: key})
	r.inItem, r.bare = true, !found
	r.more(strip(value))
	return nil
}

// endItem writes the collected value to the newest item.
func (r *iniReader) endItem() {
	if r.inItem && !r.bare {
		items := r.doc.sections[len(r.doc.sections)-1].items
		value := strings.TrimRightFunc(strings.Join(r.lines, "\n"), isSpace)
		items[len(items)-1].value = &value
	}
	r.inItem, r.lines = false, nil
}

// cutDelimiter splits at the first = or :, as configparser reads. It writes =.
func cutDelimiter(line string) (key, value string, found bool) {
	at := strings.IndexAny(line, "=:")
	if at < 0 {
		return line, "", false
	}
	return line[:at], line[at+1:], true
}

// isSpace is str.isspace of Python: Unicode's, and the four separators of ASCII.
func isSpace(r rune) bool {
	return unicode.IsSpace(r) || (r >= 0x1c && r <= 0x1f)
}

func strip(text string) string { return strings.TrimFunc(text, isSpace) }

// String writes the text as configparser does.
func (d *document) String() string {
	var b strings.Builder
	for _, s := range d.sections {
		fmt.Fprintf(&b, "[%s]\n", s.name)
		for _, i := range s.items {
			b.WriteString(i.key)
			if i.value != nil {
				b.WriteString(" = " + strings.ReplaceAll(*i.value, "\n", "\n\t"))
			}
			b.WriteByte('\n')
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (d *document) find(name string) *section {
	for i := range d.sections {
		if d.sections[i].name == name {
			return &d.sections[i]
		}
	}
	return nil
}

func (s *section) find(key string) *item {
	for i := range s.items {
		if s.items[i].key == key {
			return &s.items[i]
		}
	}
	return nil
}

// lookup returns the item, or nil where section or key are missing.
func (d *document) lookup(section, key string) *item {
	if s := d.find(section); s != nil {
		return s.find(key)
	}
	return nil
}

// set adds section and key where they are missing.
func (d *document) set(name, key string, value *string) {
	s := d.find(name)
	if s == nil {
		d.sections = append(d.sections, section{name: name})
		s = &d.sections[len(d.sections)-1]
	}
	if i := s.find(key); i != nil {
		i.value = value
		return
	}
	s.items = append(s.items, item{key: key, value: value})
}

func (d *document) remove(section, key string) {
	if s := d.find(section); s != nil {
		s.items = slices.DeleteFunc(s.items, func(i item) bool { return i.key == key })
	}
}

func (d *document) removeSection(name string) {
	d.sections = slices.DeleteFunc(d.sections, func(s section) bool { return s.name == name })
}

func (d *document) clone() *document {
	c := &document{sections: slices.Clone(d.sections)}
	for i := range c.sections {
		c.sections[i].items = slices.Clone(c.sections[i].items)
	}
	return c
}

// canonical is what a value reads back as after it was written. The format
// cannot hold white space around a value, nor lines of a value that look like
// a comment.
func canonical(value string) (string, error) {
	text := (&document{sections: []section{{name: "x", items: []item{{key: "x", value: &value}}}}}).String()
	back, err := parseINI(text)
	if err != nil {
		return "", err
	}
	if len(back.sections) != 1 || len(back.sections[0].items) != 1 || back.sections[0].items[0].value == nil {
		return "", fmt.Errorf("cannot be written to a configuration file")
	}
	return *back.sections[0].items[0].value, nil
}
