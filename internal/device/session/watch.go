package session

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"callhome/internal/wake"

	"github.com/fsnotify/fsnotify"
)

// Watch wakes the sessions whose logs have grown, with one inotify instance for
// all sessions.
type Watch struct {
	watcher *fsnotify.Watcher
	mu      sync.Mutex // guards readers
	readers map[int]chan<- struct{}
}

// NewWatch watches the logs in dir until Close.
func NewWatch(dir string) (*Watch, error) {
	fs, err := fsnotify.NewBufferedWatcher(1024)
	if err != nil {
		return nil, fmt.Errorf("watching the sessions' logs: %w", err)
	}
	if err := fs.Add(dir); err != nil {
		fs.Close()
		return nil, fmt.Errorf("watching the sessions' logs: %w", err)
	}
	w := &Watch{watcher: fs, readers: make(map[int]chan<- struct{})}
	go w.run()
	return w, nil
}

// Close closes the inotify instance.
func (w *Watch) Close() error { return w.watcher.Close() }

func (w *Watch) run() {
	for {
		select {
		case e, ok := <-w.watcher.Events:
			if !ok {
				return
			}
			if name, isLog := strings.CutSuffix(filepath.Base(e.Name), ".log"); isLog && e.Has(fsnotify.Write) {
				id, _ := strconv.Atoi(name)
				w.wakeOne(id)
			}
		case _, ok := <-w.watcher.Errors:
			if !ok {
				return
			}
			w.wakeAll() // events were lost: every session reads its log
		}
	}
}

func (w *Watch) add(id int, reader chan<- struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.readers[id] = reader
}

func (w *Watch) drop(id int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.readers, id)
}

func (w *Watch) wakeOne(id int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	wake.Up(w.readers[id])
}

func (w *Watch) wakeAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.readers {
		wake.Up(c)
	}
}
