/* Holds a pod's namespaces open and does nothing else; or, for tests of resource metrics, `burn` keeps a processor busy
   for the given seconds, and `hold` keeps the given mebibytes in memory. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void quit(int signal) {
    (void)signal;
    _exit(0);
}

int main(int count, char **arguments) {
    signal(SIGTERM, quit);
    signal(SIGINT, quit);
    if (count == 3 && strcmp(arguments[1], "burn") == 0) {
        time_t end = time(NULL) + atoi(arguments[2]);
        while (time(NULL) < end) {
        }
    }
    if (count == 3 && strcmp(arguments[1], "hold") == 0) {
        size_t size = (size_t)atoi(arguments[2]) << 20;
        volatile char *held = malloc(size);
        if (held == NULL) return 1;
        for (size_t i = 0; i < size; i += 4096) held[i] = 1;
    }
    for (;;) pause();
}
