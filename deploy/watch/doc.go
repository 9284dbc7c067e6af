// Package watch holds the dashboards of Grafana as Go, from which the files of deploy/grafana/dashboards are written, and the tests
// of all that watches a cluster: that Grafana takes the files, as its own library knows its schema; that every alert fires when it
// should; and that every panel shows something of a cluster that lives.
//
//	go test ./deploy/watch -run Files -update       # writes the files anew
//	make test-watch                                 # everything, with Debian's Prometheus
package watch
