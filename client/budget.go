package client

import (
	"math"
	"sync"
	"time"
)

// window is how long a request goes on allowing for retries.
const window = 10 * time.Second

// budget bounds how much is sent again. What requests allow for fades over the window, and what is allowed besides comes
// back at its rate.
type budget struct {
	ratio, perSecond float64

	mu     sync.Mutex
	at     time.Time
	earned float64 // by requests
	given  float64 // besides
}

func (b *budget) init(ratio, perSecond float64) {
	b.ratio, b.perSecond = ratio, perSecond
	b.at, b.given = time.Now(), b.most()
}

// most is how much of what is given can be saved up.
func (b *budget) most() float64 { return b.perSecond * window.Seconds() }

func (b *budget) settle() {
	now := time.Now()
	passed := now.Sub(b.at)
	b.at = now
	b.earned *= math.Exp(-float64(passed) / float64(window))
	b.given = min(b.most(), b.given+b.perSecond*passed.Seconds())
}

// earn counts a request.
func (b *budget) earn() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settle()
	b.earned += b.ratio
}

// take takes what one retry costs, if it is there.
func (b *budget) take() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settle()
	switch {
	case b.earned >= 1:
		b.earned--
	case b.given >= 1:
		b.given--
	default:
		return false
	}
	return true
}

// left tells whether a retry could be paid for.
func (b *budget) left() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settle()
	return b.earned >= 1 || b.given >= 1
}
