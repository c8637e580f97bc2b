// The handler of the disconnect matrix on Go's net/http. It prints its address, then "begun N" when a handler has done with
// its body what its route says, and "done N" when that handler's context has ended. Built where a Go toolchain is found.
//
// With two arguments, the files of a certificate and its key, it serves HTTPS.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	var lines sync.Mutex
	say := func(format string, words ...any) {
		lines.Lock()
		defer lines.Unlock()
		fmt.Printf(format+"\n", words...)
	}
	say("%s %s", listener.Addr(), runtime.Version())
	var last atomic.Uint64
	handler := http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
		number := last.Add(1)
		if request.URL.Path == "/read" {
			io.Copy(io.Discard, request.Body)
		}
		say("begun %d", number)
		if request.URL.Path == "/reading" {
			io.Copy(io.Discard, request.Body)
		}
		<-request.Context().Done()
		say("done %d", number)
	})
	server := &http.Server{Handler: handler, Protocols: new(http.Protocols), ErrorLog: log.New(io.Discard, "", 0)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetHTTP2(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	if len(os.Args) == 3 {
		log.Fatal(server.ServeTLS(listener, os.Args[1], os.Args[2]))
	}
	log.Fatal(server.Serve(listener))
}
