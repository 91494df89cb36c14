package render

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/template/parse"

	"leasehold/internal/spec"
)

// The hidden commands that an inspector puts into a tree. A template that names one names an unknown function.
const (
	stepCommand    = "_step"    // begins each body of range and define
	printCommand   = "_print"   // ends each pipeline that is printed
	compareCommand = "_compare" // looks at each value that is compared or looked up
	resultCommand  = "_result"  // looks at what a method returns
	rangeCommand   = "_range"   // ends each pipeline that is ranged over
)

// builtins are the functions of text/template that a template calls as they are. They make nothing and take no time worth
// counting; those that compare take some with long texts.
var builtins = map[string]struct{ compares bool }{
	"and": {}, "or": {}, "not": {}, "len": {}, "slice": {}, "call": {},
	"eq": {true}, "ne": {true}, "lt": {true}, "le": {true}, "gt": {true}, "ge": {true}, "index": {true},
}

// inspector walks the trees of a template before it is executed: it finds what must not be executed, and puts the hidden
// commands in.
type inspector struct {
	text      string
	trees     map[string]*parse.Tree
	functions map[string]bool         // those that are called, but for builtins
	calls     map[string][]invocation // by the name of the define that has them
	nodes     int
	tree      string // the define that is looked at
	faults    []string
}

// invocation is an action that executes a define.
type invocation struct {
	name string
	at   parse.Pos
}

// mostFaults is how many faults of a template are told at once.
const mostFaults = 10

func (i *inspector) inspect() error {
	for _, name := range slices.Sorted(maps.Keys(i.trees)) {
		i.tree = name
		root := i.trees[name].Root
		i.list(root, 0)
		if name != "" {
			i.begin(root, root.Pos)
		}
	}
	if i.nodes > mostNodes {
		return fmt.Errorf("template: it has more than %d actions and operands: make several files of it", mostNodes)
	}
	i.checkCalls()
	if len(i.faults) > 0 {
		return errors.New(strings.Join(i.faults, "; "))
	}
	return nil
}

func (i *inspector) fault(at parse.Pos, format string, args ...any) {
	if len(i.faults) < mostFaults {
		i.faults = append(i.faults, fmt.Sprintf("template %s: %s", i.place(at), fmt.Sprintf(format, args...)))
	}
}

// place tells a position as people count: lines and columns from 1, a column being a byte.
func (i *inspector) place(at parse.Pos) string {
	before := i.text[:min(int(at), len(i.text))]
	return fmt.Sprintf("line %d, column %d", 1+strings.Count(before, "\n"), len(before)-strings.LastIndexByte(before, '\n'))
}

// list looks at the body of a template or of a control structure.
func (i *inspector) list(l *parse.ListNode, depth int) {
	if l == nil {
		return
	}
	for _, node := range l.Nodes {
		i.nodes++
		switch node := node.(type) {
		case *parse.ActionNode:
			i.pipe(node.Pipe, 0)
			if len(node.Pipe.Decl) == 0 {
				node.Pipe.Cmds = append(node.Pipe.Cmds, command(printCommand, node.Pos))
			}
		case *parse.IfNode:
			i.branch(&node.BranchNode, depth)
		case *parse.WithNode:
			i.branch(&node.BranchNode, depth)
		case *parse.RangeNode:
			i.branch(&node.BranchNode, depth)
			i.begin(node.List, node.Pos)
			ranged := node.Pipe.Cmds[len(node.Pipe.Cmds)-1].Args
			node.Pipe.Cmds = append(node.Pipe.Cmds, command(rangeCommand, ranged[len(ranged)-1].Position()))
		case *parse.TemplateNode:
			i.pipe(node.Pipe, 0)
			i.calls[i.tree] = append(i.calls[i.tree], invocation{node.Name, node.Pos})
		case *parse.TextNode, *parse.CommentNode, *parse.BreakNode, *parse.ContinueNode:
		default:
			i.fault(node.Position(), "an action of an unknown kind")
		}
	}
}

func (i *inspector) branch(b *parse.BranchNode, depth int) {
	if depth >= mostNesting {
		i.fault(b.Pos, "if, with and range are nested deeper than %d", mostNesting)
		return
	}
	i.pipe(b.Pipe, 0)
	i.list(b.List, depth+1)
	if continues(b) {
		depth--
	}
	i.list(b.ElseList, depth+1)
}

// continues tells an "else if" or "else with": a row of them is not nested for who reads it.
func continues(b *parse.BranchNode) bool {
	if b.ElseList == nil || len(b.ElseList.Nodes) != 1 {
		return false
	}
	next := b.ElseList.Nodes[0].Type()
	return next == b.NodeType && next != parse.NodeRange
}

// begin puts the command that counts at the head of a body.
func (i *inspector) begin(body *parse.ListNode, at parse.Pos) {
	step := &parse.ActionNode{NodeType: parse.NodeAction, Pos: at, Pipe: &parse.PipeNode{
		NodeType: parse.NodePipe, Pos: at, Cmds: []*parse.CommandNode{command(stepCommand, at)},
	}}
	body.Nodes = slices.Insert(body.Nodes, 0, parse.Node(step))
}

func command(name string, at parse.Pos, args ...parse.Node) *parse.CommandNode {
	identifier := parse.NewIdentifier(name).SetPos(at)
	return &parse.CommandNode{NodeType: parse.NodeCommand, Pos: at, Args: append([]parse.Node{identifier}, args...)}
}

// pipe looks at a pipeline. Depth counts parentheses.
func (i *inspector) pipe(p *parse.PipeNode, depth int) {
	if p == nil {
		return
	}
	i.nodes++
	if depth > mostNesting {
		i.fault(p.Pos, "parentheses are nested deeper than %d", mostNesting)
		return
	}
	var commands []*parse.CommandNode
	for n, c := range p.Cmds {
		i.nodes++
		for _, argument := range c.Args {
			i.operand(argument, depth)
		}
		switch first := c.Args[0].(type) {
		case *parse.IdentifierNode:
			if builtins[first.Ident].compares {
				if n > 0 {
					commands = append(commands, command(compareCommand, c.Pos))
				}
				watch(c)
			}
			commands = append(commands, c)
		case *parse.FieldNode, *parse.ChainNode, *parse.VariableNode:
			commands = append(commands, c)
			if n > 0 || len(c.Args) > 1 { // only a method takes arguments
				i.method(first)
				commands = append(commands, command(resultCommand, c.Pos))
			}
		default:
			commands = append(commands, c)
		}
	}
	p.Cmds = commands
}

// watch puts the command that looks at compared values around the arguments of a function, but for constants.
func watch(c *parse.CommandNode) {
	for n, argument := range c.Args[1:] {
		switch argument.(type) {
		case *parse.BoolNode, *parse.NilNode, *parse.NumberNode, *parse.StringNode:
			continue
		}
		c.Args[n+1] = &parse.PipeNode{NodeType: parse.NodePipe, Pos: argument.Position(), Cmds: []*parse.CommandNode{
			command(compareCommand, argument.Position(), argument),
		}}
	}
}

func (i *inspector) operand(node parse.Node, depth int) {
	i.nodes++
	switch node := node.(type) {
	case *parse.IdentifierNode:
		i.function(node)
	case *parse.PipeNode:
		i.pipe(node, depth+1)
	case *parse.ChainNode:
		i.operand(node.Node, depth)
	// The errors of text/template have the text of a node in them, with a ">" behind it. Without texts and characters of the
	// template's author no node has a ">" in its text, so that its end can be told.
	case *parse.StringNode:
		node.Quoted = `""`
	case *parse.NumberNode:
		if strings.HasPrefix(node.Text, "'") {
			node.Text = "' '"
		}
	}
}

// method finds methods that must not be called. The last name of what is given arguments is that of a method.
func (i *inspector) method(called parse.Node) {
	var names []string
	switch called := called.(type) {
	case *parse.FieldNode:
		names = called.Ident
	case *parse.ChainNode:
		names = called.Field
	case *parse.VariableNode:
		names = called.Ident[1:]
	}
	if len(names) == 0 { // a variable alone, which is no function
		return
	}
	if name := names[len(names)-1]; !slices.Contains(methods, name) {
		i.fault(called.Position(), "method %s is not available: few take arguments, such as Format and Compare", quoteName(name))
	}
}

// function notes that a function is called, if there is one of that name.
func (i *inspector) function(node *parse.IdentifierNode) {
	name := node.Ident
	if _, found := builtins[name]; found {
		return
	}
	if bindable()[name] {
		i.functions[name] = true
		return
	}
	for _, reasons := range []map[string]string{unavailable, unavailableSprig} {
		if reason, found := reasons[name]; found {
			i.fault(node.Pos, "function %q is not available: %s", name, reason)
			return
		}
	}
	if len(i.faults) == mostFaults {
		return // to look for what was meant takes time
	}
	hint := ""
	if meant := spec.Nearest(name, callable()); meant != "" {
		hint = fmt.Sprintf(": did you mean %q?", meant)
	}
	i.fault(node.Pos, "function %q is not known%s", shortened(name), hint)
}

// callable has the names of all functions, sorted.
var callable = sync.OnceValue(func() []string {
	names := slices.AppendSeq(slices.Collect(maps.Keys(bindable())), maps.Keys(builtins))
	slices.Sort(names)
	return names
})

// checkCalls finds calls of what is not defined, and defines that call themselves, directly or through others: these would
// end only when the stack does.
func (i *inspector) checkCalls() {
	const (
		open = iota + 1 // being looked at: whoever comes here again has gone in a circle
		done
	)
	state := make(map[string]int)
	var way []string
	var visit func(name string)
	visit = func(name string) {
		state[name] = open
		way = append(way, name)
		for _, c := range i.calls[name] {
			switch {
			case i.trees[c.name] == nil:
				i.fault(c.at, "there is no define of the name %s", quoteName(c.name))
			case state[c.name] == open:
				circle := append(slices.Clone(way[slices.Index(way, c.name):]), c.name)
				i.fault(c.at, "a template must not call itself: %s", circleText(circle))
			case state[c.name] == 0:
				visit(c.name)
			}
		}
		way = way[:len(way)-1]
		state[name] = done
	}
	for _, name := range slices.Sorted(maps.Keys(i.trees)) {
		if state[name] == 0 {
			visit(name)
		}
	}
}

func quoteName(name string) string { return `"` + shortened(name) + `"` }

// circleText writes the names of a circle in a bounded length.
func circleText(names []string) string {
	var parts []string
	for n, name := range names {
		if n == mostFaults && len(names) > mostFaults+1 {
			parts = append(parts, "...")
			break
		}
		parts = append(parts, quoteName(name))
	}
	return strings.Join(parts, " calls ")
}
