package metric

import (
	"bytes"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// Process are the metrics of this process and of Go, with the names that the client
// library of Prometheus gives them.
var Process = Func(func(to *Text) {
	goRuntime(to)
	process(to, "/proc/")
})

// BuildInfo is a metric that has the versions of a program and of Go.
func BuildInfo(name, help, version string) Collector {
	return Func(func(to *Text) { to.Single(name, help, Gauge, 1, "goversion", runtime.Version(), "version", version) })
}

// memory are the figures of runtime.MemStats.
var memory = []struct {
	name, help string
	kind       Kind
	of         func(*runtime.MemStats) uint64
}{
	{"alloc_bytes", "Bytes of heap objects in use.", Gauge, func(m *runtime.MemStats) uint64 { return m.Alloc }},
	{"alloc_bytes_total", "Bytes of heap objects allocated so far.", Counter, func(m *runtime.MemStats) uint64 { return m.TotalAlloc }},
	{"buck_hash_sys_bytes", "Bytes of the profiler's hash table.", Gauge, func(m *runtime.MemStats) uint64 { return m.BuckHashSys }},
	{"frees_total", "Heap objects freed so far.", Counter, func(m *runtime.MemStats) uint64 { return m.Frees }},
	{"gc_sys_bytes", "Bytes of the garbage collector's own data.", Gauge, func(m *runtime.MemStats) uint64 { return m.GCSys }},
	{"heap_alloc_bytes", "Bytes of heap objects in use.", Gauge, func(m *runtime.MemStats) uint64 { return m.HeapAlloc }},
	{"heap_idle_bytes", "Bytes of unused spans of the heap.", Gauge, func(m *runtime.MemStats) uint64 { return m.HeapIdle }},
	{"heap_inuse_bytes", "Bytes of used spans of the heap.", Gauge, func(m *runtime.MemStats) uint64 { return m.HeapInuse }},
	{"heap_objects", "Heap objects in use.", Gauge, func(m *runtime.MemStats) uint64 { return m.HeapObjects }},
	{"heap_released_bytes", "Bytes of the heap that were returned to the kernel.", Gauge, func(m *runtime.MemStats) uint64 { return m.HeapReleased }},
	{"heap_sys_bytes", "Bytes of the heap obtained from the kernel.", Gauge, func(m *runtime.MemStats) uint64 { return m.HeapSys }},
	{"mallocs_total", "Heap objects allocated so far.", Counter, func(m *runtime.MemStats) uint64 { return m.Mallocs }},
	{"mcache_inuse_bytes", "Bytes of mcache structures in use.", Gauge, func(m *runtime.MemStats) uint64 { return m.MCacheInuse }},
	{"mcache_sys_bytes", "Bytes obtained for mcache structures.", Gauge, func(m *runtime.MemStats) uint64 { return m.MCacheSys }},
	{"mspan_inuse_bytes", "Bytes of mspan structures in use.", Gauge, func(m *runtime.MemStats) uint64 { return m.MSpanInuse }},
	{"mspan_sys_bytes", "Bytes obtained for mspan structures.", Gauge, func(m *runtime.MemStats) uint64 { return m.MSpanSys }},
	{"next_gc_bytes", "Bytes of the heap at which the next collection starts.", Gauge, func(m *runtime.MemStats) uint64 { return m.NextGC }},
	{"other_sys_bytes", "Bytes of other data of the runtime.", Gauge, func(m *runtime.MemStats) uint64 { return m.OtherSys }},
	{"stack_inuse_bytes", "Bytes of stacks in use.", Gauge, func(m *runtime.MemStats) uint64 { return m.StackInuse }},
	{"stack_sys_bytes", "Bytes obtained for stacks.", Gauge, func(m *runtime.MemStats) uint64 { return m.StackSys }},
	{"sys_bytes", "Bytes obtained from the kernel.", Gauge, func(m *runtime.MemStats) uint64 { return m.Sys }},
}

func goRuntime(to *Text) {
	threads, _ := runtime.ThreadCreateProfile(nil)
	to.Single("go_goroutines", "Goroutines.", Gauge, float64(runtime.NumGoroutine()))
	to.Single("go_threads", "Threads created.", Gauge, float64(threads))
	to.Single("go_sched_gomaxprocs_threads", "Threads that may run Go code at once.", Gauge, float64(runtime.GOMAXPROCS(0)))
	to.Single("go_gc_gomemlimit_bytes", "Limit on Go's memory.", Gauge, float64(debug.SetMemoryLimit(-1)))
	to.Single("go_info", "Always 1; the label is the version of Go.", Gauge, 1, "version", runtime.Version())
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	for _, f := range memory {
		to.Single("go_memstats_"+f.name, f.help, f.kind, float64(f.of(&m)))
	}
	to.Single("go_memstats_last_gc_time_seconds", "When the last collection ended, in seconds since 1970.", Gauge, float64(m.LastGC)/1e9)
	to.Metric("go_gc_duration_seconds", "Pauses of garbage collections.", Summary)
	pauses := debug.GCStats{PauseQuantiles: make([]time.Duration, 5)}
	debug.ReadGCStats(&pauses)
	for i, p := range pauses.PauseQuantiles {
		to.Sample(p.Seconds(), "quantile", number(float64(i)/4))
	}
	to.sample("_sum", pauses.PauseTotal.Seconds(), nil)
	to.sample("_count", float64(pauses.NumGC), nil)
}

// ticks is the kernel's USER_HZ, the unit of times in /proc (proc(5)).
const ticks = 100

// process writes the figures of proc(5). One that cannot be read is absent.
func process(to *Text, proc string) {
	if fds, err := os.ReadDir(proc + "self/fd"); err == nil {
		to.Single("process_open_fds", "Open descriptors.", Gauge, float64(len(fds)-1)) // without the one that reads
	}
	limits, _ := os.ReadFile(proc + "self/limits")
	for line := range strings.Lines(string(limits)) {
		for _, l := range []struct{ begins, name, help string }{
			{"Max open files ", "process_max_fds", "Limit on open descriptors."},
			{"Max address space ", "process_virtual_memory_max_bytes", "Limit on virtual memory; -1 for none."},
		} {
			rest, ok := strings.CutPrefix(line, l.begins)
			if !ok {
				continue
			}
			soft, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
			value, err := strconv.ParseFloat(soft, 64)
			if err != nil {
				value = -1 // unlimited
			}
			to.Single(l.name, l.help, Gauge, value)
		}
	}
	stat, _ := os.ReadFile(proc + "self/stat")
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]) // from the state, field 3 of proc(5)
	if len(fields) < 22 {
		return
	}
	field := func(n int) float64 {
		value, _ := strconv.ParseFloat(string(fields[n-3]), 64)
		return value
	}
	to.Single("process_cpu_seconds_total", "Time of processors in user and kernel mode.", Counter, (field(14)+field(15))/ticks)
	to.Single("process_virtual_memory_bytes", "Virtual memory.", Gauge, field(23))
	to.Single("process_resident_memory_bytes", "Resident memory.", Gauge, field(24)*float64(os.Getpagesize()))
	if boot, ok := bootTime(proc); ok {
		to.Single("process_start_time_seconds", "When the process started, in seconds since 1970.", Gauge, boot+field(22)/ticks)
	}
}

// bootTime is when the machine booted, in seconds since 1970.
func bootTime(proc string) (float64, bool) {
	stat, _ := os.ReadFile(proc + "stat")
	for line := range strings.Lines(string(stat)) {
		if rest, ok := strings.CutPrefix(line, "btime "); ok {
			boot, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			return boot, err == nil
		}
	}
	return 0, false
}
