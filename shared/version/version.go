// Package version names the revision that a binary was built as.
package version

// Revision is set by the linker. It is the version of the firmware that the
// server sees.
var Revision = "dev"
