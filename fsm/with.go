package fsm

// With gives the settings with the present fields of op in place of their own. They are not checked.
func (s Settings) With(op UpdateSettings) Settings { return s.with(op) }
