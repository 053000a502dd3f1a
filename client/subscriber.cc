#include "client/subscriber.h"
