package render

import "time"

// The bounds of a template, and of each of its executions. Tenants write templates, and all of them are executed in the
// one provider of the node: whatever a template does, the provider goes on, and the templates of others with it. What
// breaks a bound fails with a sentence.
const (
	mostText      = 64 << 10 // bytes of a template; a ConfigMap's whole text is ten times as much, a file that people write a tenth
	mostDelimiter = 64       // bytes of a delimiter, which is looked for at each place of the text
	mostNodes     = 32 << 10 // nodes of the parsed tree: three thousand lines with an action each have half of that
	mostNesting   = 100      // control structures in one another, and parentheses; each of them is a frame on the stack

	// mostSteps is how often all bodies of range and define may be begun. The wall clock would end them as well, but it
	// would end the same template here and let it pass there.
	mostSteps = 1_000_000

	// mostOutput is the size of a file. All files of a volume may have no more together: see maxTotal.
	mostOutput = 1 << 20

	// mostTime is what an execution may compute. What it waits for Vault, or for its turn, does not count.
	mostTime = 5 * time.Second

	mostSpent = 20 * time.Second      // what the templates of one volume may compute before another one of them begins
	mostTurn  = 50 * time.Millisecond // how long one computes while others wait for its slot
	mostBegun = 8                     // templates of one volume that are executed, or wait for Vault, at a time

	mostBuilt   = 32 << 20 // bytes of all values that an execution makes, the file included
	mostTouched = 1 << 30  // bytes of all values that it hands to functions: hashing that much takes three seconds
	mostValue   = 16 << 20 // bytes of what is handed to one function, and of what it returns
	mostHanded  = 2 << 20  // bytes of the texts in what is handed to one function: some write six bytes for one, and more than once
	mostPrinted = 4 << 20  // bytes that printing a value may take, by an estimate that is never too low
	mostFormat  = 16 << 10 // bytes of the format of printf, whose time grows with the square of it
	mostDepth   = 1000     // levels of a value: who walks it calls itself for each, and a value that contains itself has no end

	mostDecoded = 32 << 20 // bytes that the answers of one volume may take once they are decoded

	// A template can build much and then wait for a Vault that does not answer, and a volume can have many templates. So
	// each execution has only little to build freely, and a volume little to decode. What it takes beyond that comes from a
	// store that all of them share, and which is a part of the memory that the provider has. What is of ordinary size never
	// touches it.
	freelyBuilt  = 256 << 10
	mostTogether = 64 << 20

	// mostPasses is how often a template is executed that asks for the time, which is known only when all of its sources
	// are.
	mostPasses = 3

	mostParsed      = 1000     // templates that are kept parsed
	mostParsedBytes = 16 << 20 // bytes that these take
	sizeOfNode      = 256      // bytes that a node of a parsed tree takes, about
)
