package metrics

import (
	"bytes"
	"os"
	"runtime"
	runtimemetrics "runtime/metrics"
	"strconv"
	"syscall"
	"time"
)

// resources tells what the process takes of the machine, by the usual names. What the
// machine does not tell is left out.
func (s *Set) resources() []Family {
	value := func(v float64) Sample { return Value(v, "process", s.process) }
	all := []Family{
		Gauge("process_start_time_seconds", "Time at which the process started, seconds since 1970.", value(float64(s.began.UnixMilli())/1000)),
		Gauge("go_goroutines", "Goroutines of the process.", value(float64(runtime.NumGoroutine()))),
		Gauge("go_heap_objects_bytes", "Memory that objects of the heap occupy.", value(heap())),
	}
	if n, ok := resident(); ok {
		all = append(all, Gauge("process_resident_memory_bytes", "Memory of the machine that the process occupies.", value(n)))
	}
	if files, err := os.ReadDir("/proc/self/fd"); err == nil {
		all = append(all, Gauge("process_open_fds", "File descriptors of the process.", value(float64(len(files)))))
	}
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		all = append(all, Gauge("process_max_fds", "File descriptors that the process may have.", value(float64(limit.Cur))))
	}
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) == nil {
		used := time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
		all = append(all, Total("process_cpu_seconds_total", "Processor time of the process.", value(used.Seconds())))
	}
	return all
}

func heap() float64 {
	sample := []runtimemetrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	runtimemetrics.Read(sample)
	if sample[0].Value.Kind() != runtimemetrics.KindUint64 {
		return 0
	}
	return float64(sample[0].Value.Uint64())
}

// resident reads statm of proc(5).
func resident() (bytesUsed float64, ok bool) {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, false
	}
	fields := bytes.Fields(text)
	if len(fields) < 2 {
		return 0, false
	}
	pages, err := strconv.ParseUint(string(fields[1]), 10, 64)
	return float64(pages) * float64(os.Getpagesize()), err == nil
}
