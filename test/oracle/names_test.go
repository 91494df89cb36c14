package oracle

import (
	"text/template/parse"

	"leasehold/internal/spec"
)

// calls returns the names of the functions that a template calls.
func calls(t spec.Template) (map[string]bool, error) {
	tree := parse.New("template")
	tree.Mode = parse.SkipFuncCheck
	trees := make(map[string]*parse.Tree)
	if _, err := tree.Parse(t.Text, t.Left, t.Right, trees); err != nil {
		return nil, err
	}
	names := make(map[string]bool)
	for _, tree := range trees {
		collect(tree.Root, names)
	}
	return names, nil
}

// collect adds the names of the functions below a node.
func collect(node parse.Node, names map[string]bool) {
	switch node := node.(type) {
	case *parse.ListNode:
		if node != nil { // there may be no else
			for _, inner := range node.Nodes {
				collect(inner, names)
			}
		}
	case *parse.PipeNode:
		if node != nil { // a template may be called without
			for _, command := range node.Cmds {
				for _, argument := range command.Args {
					collect(argument, names)
				}
			}
		}
	case *parse.IfNode:
		collectBranch(&node.BranchNode, names)
	case *parse.RangeNode:
		collectBranch(&node.BranchNode, names)
	case *parse.WithNode:
		collectBranch(&node.BranchNode, names)
	case *parse.ActionNode:
		collect(node.Pipe, names)
	case *parse.TemplateNode:
		collect(node.Pipe, names)
	case *parse.ChainNode:
		collect(node.Node, names)
	case *parse.IdentifierNode:
		names[node.Ident] = true
	}
}

func collectBranch(node *parse.BranchNode, names map[string]bool) {
	collect(node.Pipe, names)
	collect(node.List, names)
	collect(node.ElseList, names)
}
