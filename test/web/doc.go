// Package web tests the page of callhome-nms web in a real browser, Debian's Chromium,
// with the real daemon and stand-ins for the devices. It needs no root.
package web
