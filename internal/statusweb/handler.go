// Package statusweb is the web page of the cluster's state: one page, embedded, that asks /api/status again and again. It needs no
// build step and nothing from elsewhere, and can change nothing.
package statusweb

import (
	"context"
	"embed"
	"io/fs"
	"net/http"
	"time"

	"corfu/internal/clusterstatus"
	"corfu/internal/wire/pb"
)

//go:embed assets
var assets embed.FS

// patience bounds how long an answer may take.
const patience = 5 * time.Second

// policy lets the page load what this server has, and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Source gives the cluster's state; with an error, what is known all the same.
type Source func(context.Context) (*pb.ClusterStatus, error)

// Mount adds the page at /, its parts below /ui/, and /api/status: the state as JSON (clusterstatus.JSON), with status 503 where no
// leader of the layout servers answers.
func Mount(mux *http.ServeMux, source Source) {
	files, err := fs.Sub(assets, "assets")
	if err != nil {
		panic(err) // the pattern above names it
	}
	page := http.FileServerFS(files)
	mux.Handle("GET /{$}", guarded(page, "no-cache"))
	mux.Handle("GET /ui/", guarded(http.StripPrefix("/ui", page), "no-cache"))
	mux.Handle("GET /api/status", guarded(api(source), "no-store"))
}

func guarded(h http.Handler, cache string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range map[string]string{"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff",
			"Referrer-Policy": "no-referrer", "Cache-Control": cache} {
			w.Header().Set(name, value)
		}
		h.ServeHTTP(w, r)
	})
}

func api(source Source) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), patience)
		defer cancel()
		m, err := source(ctx)
		if m == nil {
			m = clusterstatus.NoLeader(time.Now(), nil)
		}
		b, failed := clusterstatus.JSON(m)
		if failed != nil {
			http.Error(w, failed.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write(append(b, '\n'))
	})
}
