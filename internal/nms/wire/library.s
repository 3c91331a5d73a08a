// This file has no code. With it the compiler takes the functions of library.go that
// have no body.
