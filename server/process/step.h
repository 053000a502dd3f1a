// The next gRPC operation of a reactor.
#pragma once

namespace refit {

// Do it after releasing the reactor's lock: gRPC may call back from within.
enum class Step { kNothing, kWrite, kFinish };

}  // namespace refit
