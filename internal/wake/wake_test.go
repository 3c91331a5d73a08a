package wake

import "testing"

func TestSignalsMergeUntilTheReceiverTakesThem(t *testing.T) {
	c := New()
	for range 2 {
		Up(c)
		Up(c)
		<-c
		select {
		case <-c:
			t.Error("two signals arrived")
		default:
		}
	}
}
