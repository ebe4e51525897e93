// Serves series with client_golang, for scrape.py: one a line of standard input, its name, help,
// names of labels, their values, and value, separated by tabs. Prints its port.
package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

func main() {
	registry := prometheus.NewRegistry()
	gauges := map[string]*prometheus.GaugeVec{}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		cells := strings.Split(lines.Text(), "\t")
		count := (len(cells) - 3) / 2
		name, names, values := cells[0], cells[2:2+count], cells[2+count:2+2*count]
		if gauges[name] == nil {
			gauges[name] = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: cells[1]}, names)
			registry.MustRegister(gauges[name])
		}
		value, err := strconv.ParseFloat(cells[len(cells)-1], 64)
		if err != nil {
			panic(err)
		}
		gauges[name].WithLabelValues(values...).Set(value)
	}
	http.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	http.HandleFunc("/cpu", func(response http.ResponseWriter, _ *http.Request) {
		var used syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
			panic(err)
		}
		fmt.Fprint(response, float64(used.Utime.Nano()+used.Stime.Nano())/1e9)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	panic(http.Serve(listener, nil))
}
