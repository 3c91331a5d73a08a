package buckets

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"callhome/internal/nms/natstest"
)

// TestAFullBucketRefusesWrites: no station fills the servers' disks. A layout for more
// devices gives the bucket space again.
func TestAFullBucketRefusesWrites(t *testing.T) {
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprint(n, " servers"), func(t *testing.T) {
			c := connect(t, natstest.Start(t, n), time.Minute, n)
			create := func(devices int) error {
				_, err := c.Create(t.Context(), Layout{Replicas: n, Lease: time.Minute, Devices: devices})
				return err
			}
			if err := create(1); err != nil { // the buckets were larger
				t.Fatal(err)
			}
			b := open(t, c, Claims)
			value := make([]byte, 400)
			var err error
			fit := 0
			for ; err == nil && fit <= claimSpace/len(value); fit++ {
				_, err = b.Put(t.Context(), fmt.Sprint("device-", fit), value, 0)
			}
			if !errors.Is(err, errFull) || !strings.Contains(err.Error(), "--devices") || fit < 2 {
				t.Fatalf("%d values were written: %v", fit, err)
			}
			if _, err := open(t, c, Stations).Put(t.Context(), "north", []byte("{}"), 0); err != nil {
				t.Errorf("another bucket: %v", err)
			}
			if err := create(2); err != nil {
				t.Fatal(err)
			}
			for i := range 2 {
				if _, err := b.Put(t.Context(), fmt.Sprint("more-", i), value, 0); err != nil {
					t.Errorf("with more space: %v", err)
				}
			}
			if err := create(1); err == nil || !strings.Contains(err.Error(), "--devices") {
				t.Errorf("less space than is used: %v", err)
			}
			if _, err := b.Put(t.Context(), "large", make([]byte, maxClaim+1), 0); err == nil || !strings.Contains(err.Error(), "too large") {
				t.Errorf("a large value: %v", err)
			}
		})
	}
}
