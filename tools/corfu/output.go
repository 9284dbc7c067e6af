package main

import (
	"bufio"
	"encoding/json"
	"io"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"corfu/client"
	"corfu/layout"
)

// printJSON prints v as one line.
func (a *app) printJSON(v any) error { return json.NewEncoder(a.stdout).Encode(v) }

// printTable prints rows of cells in columns; the first row is the head.
func (a *app) printTable(rows [][]string) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		if _, err := io.WriteString(w, strings.Join(r, "\t")+"\n"); err != nil {
			return err
		}
	}
	return w.Flush()
}

// entryJSON is an entry, or a record of a batch, as scripts read it: exactly one of the payloads is there.
type entryJSON struct {
	Position layout.Position `json:"position"`
	Index    *int            `json:"index,omitempty"` // of the record; an entry that is no batch has none
	Payload  *string         `json:"payload,omitempty"`
	Base64   []byte          `json:"payload_base64,omitempty"` // for payloads that are not UTF-8
}

// entryPrinter prints entries, those of batches record by record: their bytes and a newline, or a JSON object a line.
type entryPrinter struct {
	json bool
	w    *bufio.Writer
	enc  *json.Encoder
}

func (a *app) newEntryPrinter() *entryPrinter {
	w := bufio.NewWriterSize(a.stdout, 64<<10)
	return &entryPrinter{json: a.json(), w: w, enc: json.NewEncoder(w)}
}

func (p *entryPrinter) print(e client.Entry) error {
	if e.Records == nil {
		return p.one(e.Position, nil, e.Payload)
	}
	for i := range e.Records {
		if err := p.record(e, i); err != nil {
			return err
		}
	}
	return nil
}

// record prints one record of a batch.
func (p *entryPrinter) record(e client.Entry, i int) error {
	return p.one(e.Position, &i, e.Records[i])
}

func (p *entryPrinter) one(at layout.Position, index *int, payload []byte) error {
	if !p.json {
		if _, err := p.w.Write(payload); err != nil {
			return err
		}
		return p.w.WriteByte('\n')
	}
	e := entryJSON{Position: at, Index: index}
	if utf8.Valid(payload) {
		s := string(payload)
		e.Payload = &s
	} else {
		e.Base64 = payload
	}
	return p.enc.Encode(e)
}

func (p *entryPrinter) flush() error { return p.w.Flush() }
