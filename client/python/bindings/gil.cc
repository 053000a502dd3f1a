#include "client/python/bindings/gil.h"

#include <pthread.h>
#include <unistd.h>

#include <csignal>

namespace refit::python {

void WaitForTheEnd() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, nullptr);
  while (true) pause();
}

}  // namespace refit::python
