package certs

// HoldFiles is a goroutine that reads the files, until the returned function is called.
func (s *Source) HoldFiles() (done func()) {
	s.mu.Lock()
	return s.mu.Unlock
}
