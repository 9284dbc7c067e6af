package watch

import "slices"

// Dashboards returns all that there are, in the order in which a new operator should look at them. Every query asks for the chosen cluster.
func Dashboards() []Dashboard {
	all := []Dashboard{overview, unit, clients, fabric, timeline}
	for i := range all {
		all[i].Rows = slices.Clone(all[i].Rows)
		for j, row := range all[i].Rows {
			panels := slices.Clone(row.Panels)
			for k, panel := range panels {
				queries := slices.Clone(panel.Queries)
				for l := range queries {
					queries[l].Expr = inCluster(queries[l].Expr)
				}
				panels[k].Queries = queries
			}
			all[i].Rows[j].Panels = panels
		}
	}
	return all
}

// good makes steps: green, and another colour from a value on.
func good(from float64, color string) []Step { return []Step{{0, "green"}, {from, color}} }

// bad makes steps: red below a value, and green from there on.
func bad(below float64) []Step { return []Step{{0, "red"}, {below, "green"}} }

// one is a query without a name of its own.
func one(expr string) []Query { return []Query{{expr, ""}} }

var upDown = map[int]string{0: "down", 1: "up"}

var overview = Dashboard{UID: "corfu-overview", Title: "corfu: cluster overview",
	Help: "Is the log well, how much is it doing, and is anything missing? Look here first.",
	Rows: []Row{
		{"Is it well?", []Panel{
			{Title: "Are positions handed out?", Help: "1: a sequencer is open, and appends can go on. 0: they wait.", Kind: Number, Unit: "short", Width: 4,
				Queries: one(`max(corfu_seq_open)`), Steps: bad(1)},
			{Title: "Does a layout server lead?", Help: "1 is right. 0: nothing can be changed, and who fails now stays in its chain.", Kind: Number, Unit: "short", Width: 4,
				Queries: one(`sum(corfu_layout_raft_leader)`), Steps: bad(1)},
			{Title: "Which epoch is it?", Help: "Each change of the layout is one epoch more.", Kind: Number, Unit: "short", Width: 4,
				Queries: one(`max(corfu_layout_epoch)`)},
			{Title: "Are replicas missing?", Help: "How many, over all chains. Above 0 one more failure may cost availability: a rebuild should be under way.", Kind: Number, Unit: "short", Width: 4,
				Queries: one(`sum(max by (segment, chain) (corfu_layout_chain_replicas_wanted - corfu_layout_chain_replicas))`), Steps: good(1, "orange")},
			{Title: "Have members failed?", Help: "How many, of which the layout leader hears nothing. One that was left out for good counts until it is removed.", Kind: Number, Unit: "short", Width: 4,
				Queries: one(`max(corfu_layout_members_failed)`), Steps: good(1, "red")},
			{Title: "Was a safety rule broken?", Help: "Two entries at one position, tampering, or copies that nobody can restore. Anything but 0: read docs/operations.md before you touch anything.", Kind: Number, Unit: "short", Width: 4,
				Queries: one(`sum({__name__=~"corfu_layout_alarms_total|corfu_unit_tampering_total|corfu_seq_alarms_total|corfu_layout_lost_copies"})`), Steps: good(1, "red")},
		}},
		{"What is it doing?", []Panel{
			{Title: "How many positions are taken, and how many pages written, a second?", Help: "A page that is not written after its position was taken is a hole, which somebody fills. Pages count once for each replica.", Kind: Lines, Unit: "ops", Width: 12,
				Queries: []Query{{`sum(rate(corfu_seq_tokens_total[$__rate_interval]))`, "positions"}, {`sum(rate(corfu_unit_ingest_pages_total[$__rate_interval]))`, "pages, all replicas"},
					{`sum(rate(corfu_unit_ingest_junk_total[$__rate_interval]))`, "junk"}}},
			{Title: "How long does an append take?", Help: "At the clients that are scraped: half of them are faster than p50, one in a hundred slower than p99.", Kind: Lines, Unit: "s", Width: 12,
				Queries: []Query{{`histogram_quantile(0.5, sum by (le) (rate(corfu_client_operation_seconds_bucket{operation="append"}[$__rate_interval])))`, "p50"},
					{`histogram_quantile(0.99, sum by (le) (rate(corfu_client_operation_seconds_bucket{operation="append"}[$__rate_interval])))`, "p99"}}},
			{Title: "How far is the log?", Help: "The next position to be handed out. A gap: nothing is handed out while an epoch changes.", Kind: Lines, Unit: "short", Width: 12, Queries: []Query{{`max(corfu_seq_next_position) > 0`, "next position"}}},
			{Title: "How is the work shared among the units?", Help: "Pages a second. Units of one chain have the same; chains of the open segment should.", Kind: Lines, Unit: "ops", Width: 12,
				Queries: []Query{{`sum by (unit) (rate(corfu_unit_ingest_pages_total[$__rate_interval]))`, "unit {{unit}}"}}},
		}},
		{"Who is there?", []Panel{
			{Title: "Which members answer the layout leader?", Help: "Spares and standbys too.", Kind: Timeline, Unit: "short", Width: 12, States: upDown, Steps: bad(1),
				Queries: []Query{{`max by (member) (corfu_layout_member_up)`, "{{member}}"}}},
			{Title: "What state are the units in?", Help: "open: serves. sealed: between two epochs. closed: a spare, or just started. Nothing: it does not answer Prometheus.", Kind: Timeline, Unit: "short", Width: 12,
				States: map[int]string{0: "closed", 1: "sealed", 2: "open"}, Steps: []Step{{0, "blue"}, {1, "orange"}, {2, "green"}},
				Queries: []Query{{`max by (unit) (corfu_unit_state)`, "unit {{unit}}"}}},
			{Title: "How much room is left on flash?", Help: "Of each unit's capacity. At 0 appends stop: trim, or add.", Kind: Lines, Unit: "percentunit", Width: 12, Max: 1,
				Queries: []Query{{`min by (unit) (corfu_unit_flash_free_bytes / (corfu_unit_flash_free_bytes + corfu_unit_flash_used_bytes))`, "unit {{unit}}"}}, Steps: []Step{{0, "red"}, {0.15, "green"}}},
			{Title: "What can step in?", Help: "Spare units and standby sequencers that answer.", Kind: Lines, Unit: "short", Width: 12,
				Queries: []Query{{`max(corfu_layout_spares_ready)`, "spare units"}, {`max(corfu_layout_standbys_ready)`, "standby sequencers"}}},
		}},
	}}

const ofUnit = `{unit=~"$unit"}`

var unit = Dashboard{UID: "corfu-unit", Title: "corfu: unit", ByUnit: true,
	Help: "What limits a storage unit: its disk, its core, its memory, or its clients?",
	Rows: []Row{
		{"What does it do?", []Panel{
			{Title: "How many pages come in, and go to flash?", Help: "Pages taken from staging, acknowledgements given, holes filled.", Kind: Lines, Unit: "ops", Width: 8,
				Queries: []Query{{`sum by (unit) (rate(corfu_unit_ingest_pages_total` + ofUnit + `[$__rate_interval]))`, "unit {{unit}}: pages"},
					{`sum by (unit) (rate(corfu_unit_acks_total` + ofUnit + `[$__rate_interval]))`, "unit {{unit}}: acknowledged"}}},
			{Title: "How long does flash take for a batch?", Help: "99 of 100 batches are faster.", Kind: Lines, Unit: "s", Width: 8,
				Queries: []Query{{`histogram_quantile(0.5, sum by (le, unit) (rate(corfu_unit_flush_seconds_bucket` + ofUnit + `[$__rate_interval])))`, "unit {{unit}}: p50"},
					{`histogram_quantile(0.99, sum by (le, unit) (rate(corfu_unit_flush_seconds_bucket` + ofUnit + `[$__rate_interval])))`, "unit {{unit}}: p99"}}},
			{Title: "How are flush times spread?", Help: "Each column is a moment; the darker a cell, the more batches took that long.", Kind: Heat, Unit: "s", Width: 8,
				Queries: []Query{{`sum by (le) (increase(corfu_unit_flush_seconds_bucket` + ofUnit + `[$__rate_interval]))`, "{{le}}"}}},
			{Title: "How many reads come from flash?", Help: "Entries that left the window are read from flash on request. Many of them: readers are far behind.", Kind: Lines, Unit: "ops", Width: 8,
				Queries: []Query{{`sum by (unit) (rate(corfu_unit_cold_reads_total` + ofUnit + `[$__rate_interval]))`, "unit {{unit}}"}}},
			{Title: "What do control calls cost?", Help: "Calls of the layout servers and of clients that open sessions; seconds spent in them a second.", Kind: Lines, Unit: "percentunit", Width: 8,
				Queries: []Query{{`sum by (grpc_method) (rate(corfu_unit_grpc_server_handling_seconds_sum` + ofUnit + `[$__rate_interval]))`, "{{grpc_method}}"}}},
			{Title: "Why do sessions end?", Help: "sealed: an epoch changed, as it should. slow, bad_message: a client does something wrong. revoked: its certificate was taken back.", Kind: Lines, Unit: "ops", Width: 8,
				Queries: []Query{{`sum by (why) (rate(corfu_unit_sessions_ended_total` + ofUnit + `[$__rate_interval]))`, "{{why}}"}}},
		}},
		{"How much of it is used?", []Panel{
			{Title: "How busy is the core?", Help: "Part of the time in which the goroutine that owns the unit's state was at work. Near 1: the unit can do no more.", Kind: Lines, Unit: "percentunit", Width: 8, Max: 1, Steps: good(0.8, "red"),
				Queries: []Query{{`sum by (unit) (rate(corfu_unit_helm_busy_seconds_total` + ofUnit + `[$__rate_interval]))`, "unit {{unit}}"}}},
			{Title: "How full is the window?", Help: "About three quarters are normal. 1: it stands still, and appends wait.", Kind: Lines, Unit: "percentunit", Width: 8, Max: 1, Steps: good(0.95, "red"),
				Queries: []Query{{`max by (unit) (corfu_unit_window_occupancy_ratio` + ofUnit + `)`, "unit {{unit}}"}}},
			{Title: "How many pages wait for flash?", Help: "Ingested and not durable yet.", Kind: Lines, Unit: "short", Width: 8,
				Queries: []Query{{`max by (unit) (corfu_unit_flush_waiting_pages` + ofUnit + `)`, "unit {{unit}}"}}},
			{Title: "How many sessions are in use?", Help: "Of those that there is room for.", Kind: Lines, Unit: "percentunit", Width: 8, Max: 1, Steps: good(0.9, "red"),
				Queries: []Query{{`max by (unit) (corfu_unit_sessions` + ofUnit + ` / (corfu_unit_sessions_max` + ofUnit + ` > 0))`, "unit {{unit}}"}}},
			{Title: "How much memory is registered?", Help: "Index, ring, staging and messages. The limit is RLIMIT_MEMLOCK, and not shown if there is none.", Kind: Lines, Unit: "bytes", Width: 8,
				Queries: []Query{{`max by (unit) (corfu_unit_registered_memory_bytes` + ofUnit + `)`, "unit {{unit}}"}, {`min by (unit) (corfu_unit_registered_memory_limit_bytes` + ofUnit + `) < Inf`, "unit {{unit}}: limit"}}},
			{Title: "What waits in its queues?", Help: "Part of each queue's room, the fullest unit.", Kind: Lines, Unit: "percentunit", Width: 8, Max: 1,
				Queries: []Query{{`max by (queue) (corfu_unit_queue_length` + ofUnit + ` / corfu_unit_queue_capacity` + ofUnit + `)`, "{{queue}}"}}},
		}},
		{"How is its disk?", []Panel{
			{Title: "How much space is taken?", Help: "By the unit's segments, and what is left for them.", Kind: Lines, Unit: "bytes", Width: 8,
				Queries: []Query{{`max by (unit) (corfu_unit_flash_used_bytes` + ofUnit + `)`, "unit {{unit}}: used"}, {`max by (unit) (corfu_unit_flash_free_bytes` + ofUnit + `)`, "unit {{unit}}: free"}}},
			{Title: "How much is written for each byte of a page?", Help: "Write amplification since the unit's start: each segment is filled with zeros before its pages come, and marks and metas are written, too. What the disk does inside is not in it.", Kind: Lines, Unit: "short", Width: 8,
				Queries: []Query{{`sum by (unit) (corfu_unit_flash_written_bytes_total` + ofUnit + `) / (sum by (unit) (corfu_unit_flash_page_bytes_total` + ofUnit + `) > 0)`, "unit {{unit}}"}}},
			{Title: "Does the disk refuse anything?", Help: "Reads, writes and flushes that failed, in all. A line that rises: read docs/operations.md, CorfuFlashErrors.", Kind: Lines, Unit: "short", Width: 8,
				Queries: []Query{{`sum by (unit) (corfu_unit_flash_write_errors_total` + ofUnit + ` + corfu_unit_flash_read_errors_total` + ofUnit + ` + corfu_unit_flush_errors_total` + ofUnit + `)`, "unit {{unit}}"}}},
			{Title: "How far is the scrub?", Help: "Which verifies all that is on flash, at a bounded rate; 1: it is through.", Kind: Lines, Unit: "percentunit", Width: 8, Max: 1,
				Queries: []Query{{`max by (unit) (corfu_unit_scrub_progress_ratio` + ofUnit + `)`, "unit {{unit}}"}}},
			{Title: "How many copies are damaged?", Help: "Known, and not repaired yet.", Kind: Lines, Unit: "short", Width: 8, Steps: good(1, "orange"),
				Queries: []Query{{`max by (unit) (corfu_unit_corrupt_pages` + ofUnit + `)`, "unit {{unit}}"}}},
			{Title: "How worn is the disk?", Help: "Part of its endurance that is used up, as it says itself (NVMe alone).", Kind: Lines, Unit: "percentunit", Width: 8, Max: 1, Steps: good(0.8, "red"), NVMe: true,
				Queries: []Query{{`max by (unit) (corfu_unit_disk_used_ratio` + ofUnit + `)`, "unit {{unit}}"}}},
		}},
	}}
