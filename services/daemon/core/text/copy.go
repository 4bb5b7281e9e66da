package text

// Messages of copies of files (client-api §2.8).
const (
	NodeUnreachable = "Could not reach this node. Try again later.\n"                           // N14
	KeywordOfNodes  = "Keyword 'booted-image' is only available with command 'walt node cp'.\n" // P1
	KeywordAsSource = "Keyword 'booted-image' can only be used as destination, not source.\n"   // P2
	BootedNotOwned  = "Cannot proceed because the booted image does not belong to you.\n"       // P3
	NodeCopyUsage   = nodeCopyUsage                                                             // P6
	ImageCopyUsage  = imageCopyUsage                                                            // P7
)

const nodeCopyUsage = `Usage:
$ walt node cp <local_file_path> <node>:<file_path>
or
$ walt node cp <node>:<file_path> <local_file_path>
or
$ walt node cp <node>:<file_path> booted-image

Regular files as well as directories are accepted.
The 3rd form (with keyword 'booted-image') allows to transfer files directly from the selected node
to the image it has booted. It is a shortcut to using 'walt node cp' and 'walt image cp' in sequence.

`

const imageCopyUsage = `Usage:
$ walt image cp <local_file_path> <image>:<file_path>
or
$ walt image cp <image>:<file_path> <local_file_path>

Regular files as well as directories are accepted.
`

// NoSuchFile is P4.
func NoSuchFile(path string) error { return Refuse("No such file or directory: %s\n", path) }

// FileOverFolder is P5.
func FileOverFolder(dst, src string) error {
	return Refuse("Invalid request. Overwriting regular file %s with directory %s is not allowed.\n", dst, src)
}
