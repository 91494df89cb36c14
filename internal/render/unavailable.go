package render

// The reasons that several functions share.
const (
	needsConsul   = "it asks Consul, and Leasehold asks Vault only"
	needsNomad    = "it asks Nomad, and Leasehold asks Vault only"
	groupsConsul  = "it groups what functions of Consul or Nomad return; explodeMap makes maps in maps of keys with slashes"
	readsFiles    = "it would read files of the node"
	runsPrograms  = "it would run a program on the node"
	writesFiles   = "it would write files of the node; make an object for each file"
	showsInnards  = "it prints addresses, which are other ones each time; use toJSONPretty or printf"
	asksInterface = "it tells the addresses of the node"
	hidesCalls    = "it may call itself without end; use the action template"
)

// unavailable has the functions of consul-template that templates may not call here, with the reason. It goes on from
// "function x is not available: ".
var unavailable = map[string]string{
	"caLeaf":           needsConsul,
	"caRoots":          needsConsul,
	"connect":          needsConsul,
	"datacenters":      needsConsul,
	"exportedServices": needsConsul,
	"key":              needsConsul,
	"keyExists":        needsConsul,
	"keyOrDefault":     needsConsul,
	"ls":               needsConsul,
	"node":             needsConsul,
	"nodes":            needsConsul,
	"partitions":       needsConsul,
	"peerings":         needsConsul,
	"safeLs":           needsConsul,
	"safeTree":         needsConsul,
	"service":          needsConsul,
	"services":         needsConsul,
	"tree":             needsConsul,

	"nomadService":     needsNomad,
	"nomadServices":    needsNomad,
	"nomadVar":         needsNomad,
	"nomadVarExists":   needsNomad,
	"nomadVarList":     needsNomad,
	"nomadVarListSafe": needsNomad,

	"byKey":   groupsConsul,
	"byMeta":  groupsConsul,
	"byPort":  groupsConsul,
	"byTag":   groupsConsul,
	"explode": groupsConsul,

	"executeTemplate": hidesCalls,
	"file":            readsFiles,
	"plugin":          runsPrograms,
	"sockaddr":        asksInterface,
	"writeToFile":     writesFiles,

	"spew_dump":    showsInnards,
	"spew_printf":  showsInnards,
	"spew_sdump":   showsInnards,
	"spew_sprintf": showsInnards,
}
