package client

import "net/http"

// Middleware verifies the token of each request, Authorization: Bearer unless an option says otherwise, and hands the
// request on with it in its context, for FromContext. It refuses what has no valid token: with 401, or 400 where the
// request is not clear about its token, and with 503 where no node could tell.
func (c *Client) Middleware(opts ...GuardOption) func(http.Handler) http.Handler {
	g := c.guard(opts)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, refusal := g.admit(r.Context(), r.Header)
			if refusal != nil {
				refusal.setHeaders(w.Header())
				g.refuse(w, r, refusal)
				return
			}
			next.ServeHTTP(w, r.WithContext(ctx))
		})
	}
}
