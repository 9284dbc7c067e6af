package watch

// operation is the time of one operation of clients, at a quantile.
func operation(q, name, legend string) Query {
	return Query{`histogram_quantile(` + q + `, sum by (le) (rate(corfu_client_operation_seconds_bucket{operation="` + name + `"}[$__rate_interval])))`, legend}
}

var clients = Dashboard{UID: "corfu-client", Title: "corfu: client and latency",
	Help: "What do programs that append and read see of the log?",
	Rows: []Row{
		{"How fast is it?", []Panel{
			{Title: "How long does an append take?", Help: "From the call until it is durable at all replicas.", Kind: Lines, Unit: "s", Width: 12,
				Queries: []Query{operation("0.5", "append", "p50"), operation("0.99", "append", "p99"), operation("0.999", "append", "p99.9")}},
			{Title: "How are append times spread?", Help: "Each column is a moment; the darker a cell, the more appends took that long.", Kind: Heat, Unit: "s", Width: 12,
				Queries: []Query{{`sum by (le) (increase(corfu_client_operation_seconds_bucket{operation="append"}[$__rate_interval]))`, "{{le}}"}}},
			{Title: "How long does a read take?", Help: "A first read of an old entry comes from flash; one of a new entry from memory.", Kind: Lines, Unit: "s", Width: 12,
				Queries: []Query{operation("0.5", "read", "p50"), operation("0.99", "read", "p99")}},
			{Title: "How long does it take to find the tail?", Help: "One read of the sequencer's word, and one for each replica of a chain.", Kind: Lines, Unit: "s", Width: 12,
				Queries: []Query{operation("0.5", "tail", "p50"), operation("0.99", "tail", "p99")}},
		}},
		{"How much, and does it work?", []Panel{
			{Title: "How many calls a second?", Help: "By operation, answered ones.", Kind: Lines, Unit: "ops", Width: 12,
				Queries: []Query{{`sum by (operation) (rate(corfu_client_operations_total{result=~"ok|empty"}[$__rate_interval]))`, "{{operation}}"}}},
			{Title: "What fails?", Help: "Calls a second that ended with an error, or appends whose outcome is not known. A short peak at a change of the epoch is what deadlines that are too short look like.", Kind: Lines, Unit: "ops", Width: 12,
				Queries: []Query{{`sum by (operation, result) (rate(corfu_client_operations_total{result=~"error|unknown"}[$__rate_interval]))`, "{{operation}} {{result}}"}}},
			{Title: "What slows appends down?", Help: "Events a second: another took the position; an entry waits for a window; something is tried again; an acknowledgement was late.", Kind: Lines, Unit: "ops", Width: 12,
				Queries: []Query{{`sum(rate(corfu_client_cas_losses_total[$__rate_interval]))`, "positions lost"}, {`sum(rate(corfu_client_window_waits_total[$__rate_interval]))`, "window waits"},
					{`sum(rate(corfu_client_retries_total[$__rate_interval]))`, "tried again"}, {`sum(rate(corfu_client_ack_timeouts_total[$__rate_interval]))`, "late acknowledgements"}}},
			{Title: "What do readers wait for?", Help: "Holes are positions that were taken and not written yet; who waits too long fills them.", Kind: Lines, Unit: "ops", Width: 12,
				Queries: []Query{{`sum(rate(corfu_client_holes_total[$__rate_interval]))`, "holes"}, {`sum(rate(corfu_client_fills_total[$__rate_interval]))`, "filled"},
					{`sum(rate(corfu_client_cold_reads_total[$__rate_interval]))`, "read from flash"}}},
		}},
		{"What does a client have in use?", []Panel{
			{Title: "How many appends are under way?", Help: "At once; Options.MaxOutstanding bounds them.", Kind: Lines, Unit: "short", Width: 8, Queries: []Query{{`sum by (instance) (corfu_client_appends_in_flight)`, "{{instance}}"}}},
			{Title: "How many staging slots are free?", Help: "0: appends wait until units acknowledge.", Kind: Lines, Unit: "short", Width: 8, Queries: []Query{{`sum by (instance) (corfu_client_staging_slots_free)`, "{{instance}}"}}},
			{Title: "Which epoch does it know?", Help: "Lines below the others are clients that cannot reach the layout servers.", Kind: Lines, Unit: "short", Width: 8,
				Queries: []Query{{`max by (instance) (corfu_client_epoch)`, "{{instance}}"}, {`max(corfu_layout_epoch)`, "in force"}}},
		}},
	}}

// onHost names the machine of each series: all processes on it read the counters of the same device, which counts once.
func onHost(expr string) string {
	return `label_replace(` + expr + `, "host", "$1", "instance", "(.*):[0-9]+")`
}

// counters is the rate of device counters by their names.
func counters(names string) []Query {
	return []Query{{`max by (host, counter, device, port) (` + onHost(`rate(corfu_rdma_port_counter_total{counter=~"`+names+`"}[$__rate_interval])`) + `)`, "{{host}} {{device}}/{{port}} {{counter}}"}}
}

var fabric = Dashboard{UID: "corfu-fabric", Title: "corfu: RDMA fabric",
	Help: "Is the network between clients, units and sequencer well? Devices and drivers count differently: what yours does not count is empty.",
	Rows: []Row{
		{"What carries the operations?", []Panel{
			{Title: "Which provider and device are in use?", Help: "verbs: RDMA. tcp: the software provider, for trying things out.", Kind: Timeline, Unit: "short", Width: 12, States: map[int]string{1: "in use"},
				Queries: []Query{{`count by (provider, device) (corfu_fabric_info) > bool 0`, "{{provider}} {{device}}"}}},
			{Title: "Are the ports up?", Help: "ACTIVE, as the kernel says, by machine, device and port. Nothing: no process on that machine answers.", Kind: Timeline, Unit: "short", Width: 12, States: upDown, Steps: bad(1), Verbs: true,
				Queries: []Query{{`min by (host, device, port) (` + onHost(`corfu_rdma_port_active`) + `)`, "{{host}} {{device}}/{{port}}"}}},
			{Title: "How many connections do sessions hold?", Help: "At units (two for each session) and sequencers.", Kind: Lines, Unit: "short", Width: 12,
				Queries: []Query{{`2 * sum(corfu_unit_sessions)`, "units"}, {`sum(corfu_seq_sessions)`, "sequencers"}}},
			{Title: "Are connections refused?", Help: "By a token that is unknown, used or too old.", Kind: Lines, Unit: "ops", Width: 12,
				Queries: []Query{{`sum(rate(corfu_unit_connections_rejected_total[$__rate_interval]))`, "units"}, {`sum(rate(corfu_seq_connections_rejected_total[$__rate_interval]))`, "sequencers"}}},
		}},
		{"How much does it carry?", []Panel{
			{Title: "How many packets come and go?", Help: "As the device counts them, for whomever they are: the device may carry more than corfu.", Kind: Lines, Unit: "pps", Width: 12, Verbs: true, Queries: counters(`sent_pkts|rcvd_pkts|port_xmit_packets|port_rcv_packets|unicast_.*_packets`)},
			{Title: "How many operations does it count?", Help: "mlx5, rx_…: READs, WRITEs and atomics of peers, carried out without the CPU. Soft-RoCE, rdma_…: messages, sent and received. Not all drivers tell.", Kind: Lines, Unit: "ops", Width: 12, Verbs: true, Queries: counters(`rx_.*_requests|rdma_sends|rdma_recvs`)},
		}},
		{"Does it lose anything?", []Panel{
			{Title: "Is anything sent again?", Help: "Packets that came twice or out of order, acknowledgements that did not come in time, receivers that were not ready. A few are no harm; many, on RoCE, are congestion without PFC or ECN.", Kind: Lines, Unit: "pps", Width: 8, Verbs: true,
				Queries: counters(`duplicate_request|out_of_seq_request|packet_seq_err|implied_nak_seq_err|out_of_sequence|completer_retry_err|rcvd_seq_err|local_ack_timeout_err|rnr_nak_retry_err|rcvd_rnr_err|send_rnr_err|roce_adp_retrans`)},
			{Title: "Are there errors?", Help: "Retries that were given up, packets that were dropped, operations that were refused, links that went down. 0 is right, but for a moment when a member ends.", Kind: Lines, Unit: "pps", Width: 8, Verbs: true,
				Queries: counters(`retry_exceeded_err|retry_rnr_exceeded_err|send_err|req_cqe_error|re.*_access_errors|out_of_buffer|link_downed|symbol_error|local_link_integrity_errors|port_rcv_errors|port_xmit_discards`)},
			{Title: "Is the network congested?", Help: "Packets marked by switches (ECN), congestion notifications (CNP) sent and obeyed, and moments in which nothing could be sent. Lines that stay up: the fabric is too small for its load, or shared. mlx5 alone.", Kind: Lines, Unit: "pps", Width: 8, Verbs: true, NIC: true,
				Queries: counters(`np_ecn_marked_roce_packets|np_cnp_sent|rp_cnp_handled|port_xmit_wait`)},
		}},
	}}

var timeline = Dashboard{UID: "corfu-timeline", Title: "corfu: reconfiguration timeline",
	Help: "When did the layout change, how long did it take, and what did it cost the clients? Search the logs for op= to follow one.",
	Rows: []Row{
		{"When?", []Panel{
			{Title: "Which epoch was in force?", Help: "Each step is a reconfiguration.", Kind: Lines, Unit: "short", Width: 12, Queries: []Query{{`max(corfu_layout_epoch)`, "epoch"}}},
			{Title: "How did they end?", Help: "Since the layout servers started. Aborted ones are tried again.", Kind: Lines, Unit: "short", Width: 12, Queries: []Query{{`sum by (result) (corfu_layout_reconfigurations_total)`, "{{result}}"}}},
			{Title: "Who was up?", Help: "Of all members, as the layout leader sees them.", Kind: Timeline, Unit: "short", Width: 12, States: upDown, Steps: bad(1), Queries: []Query{{`max by (member) (corfu_layout_member_up)`, "{{member}}"}}},
			{Title: "What did the units do?", Help: "sealed is the time in which nothing can be written. Nothing: it does not answer Prometheus.", Kind: Timeline, Unit: "short", Width: 12, States: map[int]string{0: "closed", 1: "sealed", 2: "open"}, Steps: []Step{{0, "blue"}, {1, "orange"}, {2, "green"}},
				Queries: []Query{{`max by (unit) (corfu_unit_state)`, "unit {{unit}}"}}},
		}},
		{"How long?", []Panel{
			{Title: "How long did each phase take?", Help: "The mean over the time shown in each point.", Kind: Lines, Unit: "s", Width: 12,
				Queries: []Query{{`sum by (phase) (increase(corfu_layout_reconfiguration_seconds_sum[5m])) / (sum by (phase) (increase(corfu_layout_reconfiguration_seconds_count[5m])) > 0)`, "{{phase}}"}}},
			{Title: "How long was the slowest whole one?", Help: "From its beginning until it was open everywhere, of the last 5 minutes.", Kind: Lines, Unit: "s", Width: 12,
				Queries: []Query{{`histogram_quantile(1, sum by (le) (increase(corfu_layout_epoch_change_seconds_bucket[5m])))`, "whole"}}},
			{Title: "What did clients notice?", Help: "Appends a second, and the slowest of a hundred. A change of the epoch is a short dip.", Kind: Lines, Unit: "ops", Width: 12,
				Queries: []Query{{`sum(rate(corfu_client_operations_total{operation="append",result="ok"}[$__rate_interval]))`, "appends"}}},
			{Title: "How slow were appends?", Help: "The slowest of a hundred, at the clients that are scraped.", Kind: Lines, Unit: "s", Width: 12, Queries: []Query{operation("0.99", "append", "p99")}},
		}},
		{"Is everything whole again?", []Panel{
			{Title: "Which chains lack replicas?", Help: "Wanted less present, by the first position of the segment and the chain's place in it.", Kind: Lines, Unit: "short", Width: 8, Steps: good(1, "orange"),
				Queries: []Query{{`max by (segment, chain) (corfu_layout_chain_replicas_wanted - corfu_layout_chain_replicas)`, "from {{segment}}, chain {{chain}}"}}},
			{Title: "How far is the rebuild?", Help: "Of the older positions that units which joined are to get; 1: nothing is lacking.", Kind: Lines, Unit: "percentunit", Width: 8, Max: 1, Queries: []Query{{`min(corfu_layout_rebuild_progress_ratio)`, "copied"}}},
			{Title: "How fast is it copied?", Help: "At most at rebuild_rate.", Kind: Lines, Unit: "Bps", Width: 8, Queries: []Query{{`sum(rate(corfu_layout_rebuild_copied_bytes_total[$__rate_interval]))`, "rebuild"}}},
		}},
	}}
