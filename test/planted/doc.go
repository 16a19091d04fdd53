// Package planted checks the checks: it plants each fault of internal/plant in the real code, one at a time, and runs
// seeds of the simulation until a check catches it. A fault that the simulation cannot show has to be caught by the model
// of the protocol, and its plot says why. A check that lets all faults pass would be as green as one that finds none.
//
// Its tests need the build tag planted: make planted.
package planted
