// The workloads on Go's context package: `peers-go measure go CASE` prints nanoseconds per operation and the share of
// the machine that others had meanwhile, or `-`; for w8 it prints bytes. Go's collector runs on threads of its own; its
// work is in the CPU time of the process, as it is a cost of the program.
package main

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const (
	span        = 150e6
	patience    = 4 * time.Second
	halfAMinute = 30 * time.Second
	tenSeconds  = 10 * time.Second
	live        = 1_000_000
	tasks       = 10_000
)

// Written to, so that what is measured is not optimized away.
var (
	keptError error
	keptValue any
	keptFlag  bool
)

func main() {
	if len(os.Args) != 4 || os.Args[1] != "measure" {
		fmt.Fprintln(os.Stderr, "usage: measure go CASE")
		os.Exit(2)
	}
	name := os.Args[3]
	for _, find := range []func(string) (float64, string, bool){tree, timed, checks, cancels, wakes, values, bytes, requests} {
		if value, others, ok := find(name); ok {
			fmt.Printf("%.4f %s\n", value, others)
			return
		}
	}
	fmt.Fprintln(os.Stderr, "no such case: "+name)
	os.Exit(1)
}

// cpu is the CPU time of this process in nanoseconds.
func cpu() float64 {
	var spec syscall.Timespec
	const processClock = 2
	if _, _, code := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, processClock, uintptr(unsafe.Pointer(&spec)), 0); code != 0 {
		panic(code)
	}
	return float64(spec.Sec)*1e9 + float64(spec.Nsec)
}

// busy is what all cores together have spent on something, in nanoseconds.
func busy() float64 {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	fields := strings.Fields(strings.SplitN(string(stat), "\n", 2)[0])[1:]
	sum := 0.0
	for _, place := range []int{0, 1, 2, 5, 6, 7} {
		ticks, _ := strconv.ParseFloat(fields[place], 64)
		sum += ticks * 1e7
	}
	return sum
}

// watch answers a function that tells the share of the machine that others had since.
func watch() func() string {
	began, own, all := time.Now(), cpu(), busy()
	return func() string {
		whole := float64(time.Since(began).Nanoseconds()) * float64(runtime.NumCPU())
		return fmt.Sprintf("%.3f", max(0, (busy()-all-(cpu()-own))/whole))
	}
}

func calibrate(timed func(int) float64) int {
	for count := 16; ; {
		took := timed(count)
		switch {
		case took >= span/10:
			return int(float64(count)*span/took*1.05) + 1
		case took < span/100:
			count *= 8
		default:
			count *= 2
		}
	}
}

func onCPU(work func(int)) (float64, string, bool) {
	timed := func(count int) float64 {
		began := cpu()
		work(count)
		return cpu() - began
	}
	count := calibrate(timed)
	return timed(count) / float64(count), "-", true
}

func onTwoThreads(work func(int)) (float64, string, bool) {
	timed := func(count int) float64 {
		var done sync.WaitGroup
		start := make(chan struct{})
		for range 2 {
			done.Go(func() {
				<-start
				work(count)
			})
		}
		began := time.Now()
		close(start)
		done.Wait()
		return float64(time.Since(began).Nanoseconds())
	}
	count := calibrate(timed)
	others := watch()
	value := timed(count) / float64(count)
	return value, others(), true
}

func inRounds(work func() (float64, int)) (float64, string, bool) {
	work()
	began := time.Now()
	took, count := 0.0, 0
	for done := 0; took < span && (done < 3 || time.Since(began) < patience); done++ {
		some, operations := work()
		took += some
		count += operations
	}
	return took / float64(count), "-", true
}

func latency(work func() float64) (float64, string, bool) {
	for range 20 {
		work()
	}
	others := watch()
	began := time.Now()
	var seen []float64
	for time.Since(began) < 2*span*time.Nanosecond || len(seen) < 15 {
		seen = append(seen, work())
	}
	sort.Float64s(seen)
	return seen[len(seen)/2], others(), true
}

func w1(root context.Context, count int) {
	for range count {
		_, cancel := context.WithCancel(root)
		cancel()
	}
}

func tree(name string) (float64, string, bool) {
	root, stop := context.WithCancel(context.Background())
	defer stop()
	switch name {
	case "w1":
		return onCPU(func(count int) { w1(root, count) })
	case "w1_100k":
		for range 100_000 {
			_, cancel := context.WithCancel(root)
			defer cancel()
		}
		return onCPU(func(count int) { w1(root, count) })
	case "w2":
		return onTwoThreads(func(count int) { w1(root, count) })
	}
	return 0, "", false
}

func w3(root context.Context, count int) {
	for range count {
		_, cancel := context.WithTimeout(root, halfAMinute)
		cancel()
	}
}

func timed(name string) (float64, string, bool) {
	root, stop := context.WithCancel(context.Background())
	defer stop()
	switch name {
	case "w3_armed":
		return onCPU(func(count int) { w3(root, count) })
	case "w3_100k":
		other, stopOther := context.WithCancel(context.Background())
		defer stopOther()
		for range 100_000 {
			_, cancel := context.WithTimeout(other, halfAMinute)
			defer cancel()
		}
		return onCPU(func(count int) { w3(root, count) })
	case "w3_2t":
		return onTwoThreads(func(count int) { w3(root, count) })
	}
	return 0, "", false
}

func checks(name string) (float64, string, bool) {
	root, stop := context.WithCancel(context.Background())
	defer stop()
	check := func(ctx context.Context) func(int) {
		return func(count int) {
			for range count {
				keptError = ctx.Err()
			}
		}
	}
	switch name {
	case "w4_d1":
		return onCPU(check(root))
	case "w4_d10":
		ctx := root
		for range 10 {
			below, cancel := context.WithCancel(ctx)
			defer cancel()
			ctx = below
		}
		return onCPU(check(ctx))
	case "w4_deadline":
		ctx, cancel := context.WithTimeout(root, halfAMinute)
		defer cancel()
		return onCPU(check(ctx))
	case "w4_2t":
		ctx, cancel := context.WithCancel(root)
		defer cancel()
		// Not into one variable: its line would travel between the cores.
		return onTwoThreads(func(count int) {
			var last error
			for range count {
				if last = ctx.Err(); last != nil {
					panic(last)
				}
			}
			runtime.KeepAlive(last)
		})
	}
	return 0, "", false
}

type built struct {
	nodes  []context.Context
	cancel context.CancelFunc
}

// build makes a tree in which node i, from 1, is below node parent(i).
func build(count int, parent func(int) int) built {
	root, cancel := context.WithCancel(context.Background())
	nodes := make([]context.Context, 1, count+1)
	nodes[0] = root
	for place := 1; place <= count; place++ {
		child, _ := context.WithCancel(nodes[parent(place)])
		nodes = append(nodes, child)
	}
	return built{nodes, cancel}
}

func cancels(name string) (float64, string, bool) {
	flat := func(int) int { return 0 }
	line := func(place int) int { return place - 1 }
	shapes := map[string]struct {
		trees, nodes int
		parent       func(int) int
	}{
		"w5_1k":       {16, 1_000, flat},
		"w5_100k":     {1, 100_000, flat},
		"w5_1m":       {1, 1_000_000, flat},
		"w5_bin10":    {8, 2_046, func(place int) int { return (place - 1) / 2 }},
		"w5_dec5":     {1, 111_110, func(place int) int { return (place - 1) / 10 }},
		"w5_chain10k": {1, 10_000, line},
	}
	shape, ok := shapes[name]
	if !ok {
		return 0, "", false
	}
	return inRounds(func() (float64, int) {
		trees := make([]built, shape.trees)
		for place := range trees {
			trees[place] = build(shape.nodes, shape.parent)
		}
		began := cpu()
		for _, tree := range trees {
			tree.cancel()
		}
		took := cpu() - began
		for _, tree := range trees {
			if tree.nodes[len(tree.nodes)-1].Err() == nil {
				panic("not cancelled")
			}
		}
		return took, shape.trees * shape.nodes
	})
}

func wakes(name string) (float64, string, bool) {
	switch name {
	case "w6_task":
		return latency(func() float64 {
			ctx, cancel := context.WithCancel(context.Background())
			ran := make(chan time.Time)
			go func() {
				<-ctx.Done()
				ran <- time.Now()
			}()
			time.Sleep(200 * time.Microsecond)
			began := time.Now()
			cancel()
			return float64((<-ran).Sub(began).Nanoseconds())
		})
	case "w6_10k":
		return latency(func() float64 {
			ctx, cancel := context.WithCancel(context.Background())
			var waiting, left atomic.Int64
			left.Store(tasks)
			ran := make(chan time.Time, 1)
			for range tasks {
				go func() {
					waiting.Add(1)
					<-ctx.Done()
					if left.Add(-1) == 0 {
						ran <- time.Now()
					}
				}()
			}
			for waiting.Load() < tasks {
				runtime.Gosched()
			}
			time.Sleep(time.Millisecond)
			began := time.Now()
			cancel()
			return float64((<-ran).Sub(began).Nanoseconds()) / tasks
		})
	}
	return 0, "", false
}

// key is a key of a type of its own, of no size.
func key(number int) any {
	return reflect.New(reflect.ArrayOf(number, reflect.TypeFor[struct{}]())).Elem().Interface()
}

func values(name string) (float64, string, bool) {
	what, number, ok := strings.Cut(strings.TrimPrefix(name, "w7_"), "_")
	depth, err := strconv.Atoi(number)
	if !ok || err != nil || !strings.HasPrefix(name, "w7_") {
		return 0, "", false
	}
	var keys [128]any
	for place := range keys {
		keys[place] = key(place)
	}
	var value any = new(int)
	ctx := context.Background()
	for place := range depth {
		ctx = context.WithValue(ctx, keys[place], value)
	}
	switch what {
	case "hit":
		oldest := keys[0]
		return onCPU(func(count int) {
			for range count {
				keptValue = ctx.Value(oldest)
			}
		})
	case "miss":
		missing := keys[126]
		return onCPU(func(count int) {
			for range count {
				keptFlag = ctx.Value(missing) != nil
			}
		})
	case "derive":
		fresh := keys[127]
		return onCPU(func(count int) {
			for range count {
				keptValue = context.WithValue(ctx, fresh, value)
			}
		})
	case "ladder":
		return onCPU(func(count int) {
			for range (count + 7) / 8 {
				last := ctx
				for place := 118; place < 126; place++ {
					last = context.WithValue(last, keys[place], value)
				}
				keptValue = last
			}
		})
	}
	return 0, "", false
}

func heap() float64 {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return float64(stats.HeapAlloc)
}

func bytes(name string) (float64, string, bool) {
	root, stop := context.WithCancel(context.Background())
	defer stop()
	var value any = new(int)
	fresh := key(1)
	make_ := map[string]func() context.Context{
		"w8_child": func() context.Context {
			ctx, _ := context.WithCancel(root)
			return ctx
		},
		"w8_timeout": func() context.Context {
			ctx, _ := context.WithTimeout(root, 10*time.Minute)
			return ctx
		},
		"w8_value": func() context.Context { return context.WithValue(root, fresh, value) },
	}[name]
	if make_ == nil {
		return 0, "", false
	}
	kept := make([]context.Context, 0, live)
	before := heap()
	for range live {
		kept = append(kept, make_())
	}
	each := (heap() - before) / live
	runtime.KeepAlive(kept)
	return each, "-", true
}

type (
	one struct{}
	two struct{}
)

func request(base context.Context, value any) {
	connection, cancel := context.WithCancel(base)
	incoming, cancelIncoming := context.WithCancel(connection)
	ctx := context.WithValue(incoming, one{}, value)
	ctx = context.WithValue(ctx, two{}, value)
	route, cancelRoute := context.WithTimeout(ctx, halfAMinute)
	for range 3 {
		step, cancelStep := context.WithTimeout(route, tenSeconds)
		for range 20 {
			if step.Err() != nil {
				panic("cancelled")
			}
		}
		cancelStep()
	}
	cancel()
	cancelRoute()
	cancelIncoming()
}

func requests(name string) (float64, string, bool) {
	base, stop := context.WithCancel(context.Background())
	defer stop()
	var value any = new(int)
	work := func(count int) {
		for range count {
			request(base, value)
		}
	}
	switch name {
	case "w9":
		return onCPU(work)
	case "w9_2t":
		return onTwoThreads(work)
	}
	return 0, "", false
}
