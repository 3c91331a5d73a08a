// Package daemon is what callhome-mgr and callhome-nms need to run as daemons:
// opening the Unix sockets that clients connect to, accepting connections when
// the machine runs short of descriptors, and notifying systemd. The rooms that
// listen and the daemons' mains call it. It never reads or writes a connection.
package daemon
