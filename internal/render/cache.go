package render

import (
	"sync"

	"leasehold/internal/spec"
)

// cache is what a Renderer keeps between executions: the templates that it has parsed, with machines that are idle. The zero
// cache is empty and ready to use.
type cache struct {
	mu      sync.Mutex // guards what follows, and what changes in a parsed template
	entries map[spec.Template]*parsed
	size    int   // bytes that they take, about
	uses    int64 // of all templates
}

// get returns a template parsed.
func (c *cache) get(t spec.Template) (*parsed, error) {
	if p := c.find(t); p != nil {
		return p, nil
	}
	p, err := parseTemplate(t) // without the lock, for it takes time
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if other := c.entries[t]; other != nil { // was faster
		return other, nil
	}
	if c.entries == nil {
		c.entries = make(map[spec.Template]*parsed)
	}
	c.uses++
	p.used = c.uses
	c.entries[t] = p
	c.size += p.size
	for len(c.entries) > mostParsed || c.size > mostParsedBytes {
		oldest := p
		for _, other := range c.entries {
			if other.used < oldest.used {
				oldest = other
			}
		}
		delete(c.entries, oldest.source)
		c.size -= oldest.size
	}
	return p, nil
}

// find returns a template that is parsed already, or nil.
func (c *cache) find(t spec.Template) *parsed {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.entries[t]
	if p != nil {
		c.uses++
		p.used = c.uses
	}
	return p
}

// mostIdle is how many machines of a template wait for the next execution. Mostly one volume at a time is looked at.
const mostIdle = 2

// take returns a machine of a template.
func (c *cache) take(p *parsed) *machine {
	if m := c.idle(p); m != nil {
		return m
	}
	return p.machine()
}

func (c *cache) idle(p *parsed) *machine {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := len(p.idle) - 1
	if last < 0 {
		return nil
	}
	m := p.idle[last]
	p.idle = p.idle[:last]
	return m
}

// give puts a machine back.
func (c *cache) give(p *parsed, m *machine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(p.idle) < mostIdle {
		p.idle = append(p.idle, m)
	}
}
