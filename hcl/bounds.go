package hcl

import (
	"bytes"
	"fmt"

	hcl2 "github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// The parser calls itself for what is within something else, without a limit: a file of
// nothing but opening brackets would end the program, PID 1 too. Nothing of ours comes near
// these.
const (
	maxNesting   = 64
	maxOperators = 1024
	// To quote a line in an error, the library looks through all of them, slowly.
	maxLines = 10000
)

// checkBounds refuses what would take too long or too deep, before it is parsed.
func checkBounds(src []byte, name string) error {
	if bytes.Count(src, []byte("\n")) > maxLines {
		return fmt.Errorf("cannot read %s: it has more than %d lines", name, maxLines)
	}
	tokens, _ := hclsyntax.LexConfig(src, name, hcl2.InitialPos) // the parser tells what is wrong
	depth, operators := 0, 0
	var before hclsyntax.TokenType
	for _, token := range tokens {
		switch token.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOParen, hclsyntax.TokenOQuote, hclsyntax.TokenOHeredoc,
			hclsyntax.TokenTemplateInterp:
			depth++
		case hclsyntax.TokenTemplateControl:
			return fmt.Errorf("cannot read %s: line %d: %%{ begins a directive, which no file needs; write %%%%{ for the characters", name, token.Range.Start.Line)
		case hclsyntax.TokenOBrack:
			depth++
			if before == hclsyntax.TokenCBrack || before == hclsyntax.TokenIdent { // an index
				operators++
			}
		case hclsyntax.TokenCBrace, hclsyntax.TokenCParen, hclsyntax.TokenCBrack, hclsyntax.TokenCQuote, hclsyntax.TokenCHeredoc,
			hclsyntax.TokenTemplateSeqEnd:
			depth = max(0, depth-1)
		case hclsyntax.TokenIdent, hclsyntax.TokenNumberLit, hclsyntax.TokenQuotedLit, hclsyntax.TokenStringLit,
			hclsyntax.TokenEqual, hclsyntax.TokenComma, hclsyntax.TokenColon, hclsyntax.TokenNewline, hclsyntax.TokenComment, hclsyntax.TokenEOF:
		default:
			operators++
		}
		before = token.Type
		switch {
		case depth > maxNesting:
			return fmt.Errorf("cannot read %s: line %d: more than %d brackets and quotes are within each other", name, token.Range.Start.Line, maxNesting)
		case operators > maxOperators:
			return fmt.Errorf("cannot read %s: line %d: more than %d operators or stray characters", name, token.Range.Start.Line, maxOperators)
		}
	}
	return nil
}
