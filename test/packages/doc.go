// Package packages runs the stories of the packages: that they are built to
// the byte again, that what is in them is in order, and what dpkg makes of them
// in Debian trees, from the installation to the purge, with a session that
// lives through it all. `make packages-test` runs them, as root, in namespaces
// of their own; the trees are those of test/integration and are not written.
package packages
