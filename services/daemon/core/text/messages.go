package text

import (
	"errors"
	"fmt"
	"strings"
)

// Refusal is a text for the error output of the client whose request was refused; the
// call then returns its failure value.
type Refusal struct{ Text string }

func (r *Refusal) Error() string { return strings.TrimSuffix(r.Text, "\n") }

// Refuse returns a Refusal of that text.
func Refuse(format string, args ...any) error {
	return &Refusal{fmt.Sprintf(format, args...)}
}

// Messages of the catalogue (client-api §2.8) without parameter, by their id there.
const (
	Done              = "Done.\n"                                                                                                                                                                                                                                  // C0
	NeedSettings      = "Please provide settings as `<setting name>=<setting value>` arguments.\n"                                                                                                                                                                 // C1
	NoMatchingDevice  = "No matching devices found! (tip: walt help show node-ownership)\n"                                                                                                                                                                        // G2
	ImageInUse        = "Sorry, cannot proceed because the image is in use.\n"                                                                                                                                                                                     // I3
	DefaultReserved   = "Sorry 'default' is a reserved keyword.\n"                                                                                                                                                                                                 // I4
	NoCheckpoint      = "You own no checkpoints.\n"                                                                                                                                                                                                                // L4
	CheckpointExists  = "Failed: a checkpoint with this name already exists.\n"                                                                                                                                                                                    // L2
	OnlyNameWritable  = "Failed: the only writable config item is `name=<port-name>`.\n"                                                                                                                                                                           // E1
	BadPortName       = "Failed: the port name can only be made of digits, letters, and dashes (minus signs).\n"                                                                                                                                                   // E2
	BadImageName      = "Bad name: expected format is <name> or <name>:<tag>.\nOnly lowercase letters, digits and dash(-) characters are allowed in <name> and <tag>.\n"                                                                                           // I5
	InvalidDeviceName = "Failed: invalid new name.\nThis name must be a valid network hostname.\nOnly alphanumeric characters and '-' are allowed.\nThe 1st character must be an alphabet letter.\nThe name must be at least 2-chars long.\n(Example: rpi-D327)\n" // G7
	NoVirtualization  = "Failed because virtualization is not enabled on server CPU (missing /dev/kvm).\n"                                                                                                                                                         // N2
	NoImageMatches    = "Sorry, no image could match your request.\n"                                                                                                                                                                                              // R7
	UnknownTopology   = "Sorry, topology is unknown. Ensure a switch is connected to server (on walt-net interface) and run \"walt device rescan\".\n"                                                                                                             // D3
)

// NoSuchDevice is G1.
func NoSuchDevice(name string) error { return Refuse("No device with name '%s' found.\n", name) }

// NotAllowed is G3.
func NotAllowed(set, allowed string) error {
	return Refuse("Invalid value '%s'; allowed devices belong to '%s'\n", set, allowed)
}

// NotANode is G4.
func NotANode(name, kind string) error {
	return Refuse("%s is not a node, it is a %s.\n", name, kind)
}

// UnknownIP is G5.
func UnknownIP(name string) error {
	return Refuse("Sorry, IP address of %s in unknown.\n", name)
}

// DeviceExists is G6.
func DeviceExists(name string) error {
	return Refuse("Failed: a device with name '%s' already exists.\n", name)
}

// NotVirtual is N1.
func NotVirtual(name string) error {
	return Refuse("FAILED: %s is a real node (not virtual).\n", name)
}

// NoSuchImage is I1.
func NoSuchImage(name string) error {
	return Refuse("Error: No such image '%s'. (tip: walt image show)\n", name)
}

// OwnUserName is I20.
func OwnUserName(user string) error {
	return Refuse("Invalid username. According to your walt.conf file, you are '%s'!\n", user)
}

// ImagesInUse is I21.
func ImagesInUse(user string, names []string) error {
	return Refuse("Cannot proceed because some images of %s are in use:\n%s\n", user, strings.Join(names, ", "))
}

// ImagesTaken is I22.
func ImagesTaken(user string, names []string) error {
	return Refuse("Cannot proceed because the following images of %s would overwrite\nthose with the same name in your working set:\n%s\n", user, strings.Join(names, ", "))
}

// NoImagesOf is I23.
func NoImagesOf(user string) error {
	return Refuse("Connot find any images belonging to a user with name '%s'.\nMake sure you typed it correctly.\n", user)
}

// IsEmptySet tells whether an error says that a set has no device (G2).
func IsEmptySet(err error) bool {
	var refusal *Refusal
	return errors.As(err, &refusal) && refusal.Text == NoMatchingDevice
}

// ImageExists is I2.
func ImageExists(name string) error {
	return Refuse("Error: Image '%s' already exists.\n", name)
}

// InvalidLink is K1; locations are those that images can be cloned from.
func InvalidLink(locations []string) error {
	return Refuse("Invalid clonable image link. Format must be:\n[%s]:<user>/<image_name>[:<tag>]\n(tip: walt image search [<keyword>])\n", strings.Join(locations, "|"))
}

// RegistryFailure is R1.
func RegistryFailure(label string) error {
	return Refuse("Failed to communicate with %s registry. Aborted.\n", label)
}

// DownloadFailure is R4; registries are their labels in quotes.
func DownloadFailure(image string, registries []string) string {
	return About("Failed to download "+image+" from %s.", registries, Noun{"no registries", "registry", "registries"}, "or")
}

// NoSuchCheckpoint is L3.
func NoSuchCheckpoint(name string) error {
	return Refuse("Failed: no checkpoint with this name '%s'.\n", name)
}

// NotASwitch is E4.
func NotASwitch(name string) error { return Refuse("Failed: %s is not a switch.\n", name) }

// NotExplorable is E5.
func NotExplorable(name string) error {
	return Refuse("Failed: cannot detect switch ports of %s because \"lldp.explore\" config option is not enabled.\nSee: walt help show device-config\n", name)
}

// ConfusingPortName is E3.
func ConfusingPortName(port int64) error {
	return Refuse("Failed: to avoid confusion, the only integer allowed for this port name is \"%d\", the ID of the port in the switch.\n", port)
}
