// Package trace begins and ends spans as OpenTelemetry's SDK does: names, arguments and the order
// of a span's fields are its, as of 1.46.
package trace

import (
	"sync"
	"time"
)

// Context is a trace.SpanContext.
type Context struct {
	TraceID [16]byte
	SpanID  [8]byte
	flags   byte
	state   []string
	remote  bool
}

type recordingSpan struct {
	mu          sync.Mutex
	parent      Context
	kind        int
	name        string
	start, end  time.Time
	status      struct{ code, description string }
	children    int
	spanContext Context
	attributes  []string
}

type tracer struct{ begun int }

// Span is one that has not ended.
type Span = *recordingSpan

var (
	own  tracer
	lock sync.Mutex
)

//go:noinline
func (tr *tracer) newRecordingSpan(_ any, psc, sc Context, name string) *recordingSpan {
	lock.Lock()
	tr.begun++
	lock.Unlock()
	return &recordingSpan{parent: psc, spanContext: sc, name: name, start: time.Now()}
}

// End ends the span.
//
//go:noinline
func (s *recordingSpan) End(_ ...any) {
	s.mu.Lock()
	s.end = time.Now()
	s.mu.Unlock()
}

// Begin begins a span of a trace; one without parent begins the trace.
func Begin(traceID, id byte, parent Span) Span {
	sc, psc := Context{}, Context{}
	sc.TraceID[15], sc.SpanID[7] = traceID, id
	if parent != nil {
		psc = parent.spanContext
	}
	return own.newRecordingSpan(nil, psc, sc, "span")
}
