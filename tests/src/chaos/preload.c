/* Loaded into a node's process before libc: faults that a process cannot tell from the system's own.
 *
 * - fsync and fdatasync fail with EIO while the control file says so
 * - the wall clock is off by what the control file says; monotonic clocks are left alone
 * - connections to the internode port of another node go to the relay of that directed link
 *
 * FAULTS_CONTROL names the control file, FAULTS_NODE is the node's number. Without them nothing changes. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define INTERNODE_PORT 7000
#define NODES_MAX 9
#define SECOND_NS 1000000000L
/* Absolute times below this are of a monotonic clock: uptimes, not dates. */
#define DATES_BEGIN_S 1000000000L

/* The same as in preload.rs. */
struct control {
    volatile int64_t clock_offset_ns;
    volatile uint32_t sync_fails;
    volatile uint32_t loaded;
    volatile uint32_t syncs_failed;
    volatile uint32_t redirected;
};

static struct control *control;
static int node;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULTS_CONTROL"), *number = getenv("FAULTS_NODE");
    if (!path || !number) return;
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) return;
    void *mapped = mmap(0, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (mapped == MAP_FAILED) return;
    node = atoi(number);
    control = mapped;
    __sync_fetch_and_add(&control->loaded, 1);
}

static int64_t offset_ns(void) { return control ? control->clock_offset_ns : 0; }

static struct timespec shifted(struct timespec at, int64_t by_ns) {
    int64_t ns = at.tv_nsec + by_ns % SECOND_NS;
    at.tv_sec += by_ns / SECOND_NS + (ns >= SECOND_NS) - (ns < 0);
    at.tv_nsec = ns >= SECOND_NS ? ns - SECOND_NS : ns < 0 ? ns + SECOND_NS : ns;
    return at;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    static __typeof__(&clock_gettime) real;
    if (!real) real = REAL(clock_gettime);
    int result = real(clock, at);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        *at = shifted(*at, offset_ns());
    return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    (void)zone;
    struct timespec now;
    int result = clock_gettime(CLOCK_REALTIME, &now);
    if (result == 0) {
        at->tv_sec = now.tv_sec;
        at->tv_usec = now.tv_nsec / 1000;
    }
    return result;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}

/* The kernel waits by the true clock, the caller reckons with the shifted one. */
int pthread_cond_timedwait(pthread_cond_t *restrict condition, pthread_mutex_t *restrict mutex,
                           const struct timespec *restrict until) {
    static __typeof__(&pthread_cond_timedwait) real;
    if (!real) real = REAL(pthread_cond_timedwait);
    struct timespec true_until = *until;
    if (until->tv_sec > DATES_BEGIN_S) true_until = shifted(true_until, -offset_ns());
    return real(condition, mutex, &true_until);
}

static int sync_fails(void) {
    if (!control || !control->sync_fails) return 0;
    __sync_fetch_and_add(&control->syncs_failed, 1);
    errno = EIO;
    return 1;
}

int fsync(int file) {
    static __typeof__(&fsync) real;
    if (!real) real = REAL(fsync);
    return sync_fails() ? -1 : real(file);
}

int fdatasync(int file) {
    static __typeof__(&fdatasync) real;
    if (!real) real = REAL(fdatasync);
    return sync_fails() ? -1 : real(file);
}

/* Node j of a loopback network is 127.x.y.j; the relay from node i to it is 127.x.y.(100 + 10 i + j). */
int connect(int socket, const struct sockaddr *to, socklen_t length) {
    static __typeof__(&connect) real;
    if (!real) real = REAL(connect);
    struct sockaddr_in relay;
    if (!control || !to || to->sa_family != AF_INET || length < sizeof relay) return real(socket, to, length);
    relay = *(const struct sockaddr_in *)to;
    uint32_t address = ntohl(relay.sin_addr.s_addr), target = address & 0xff;
    if (ntohs(relay.sin_port) != INTERNODE_PORT || target < 1 || target > NODES_MAX || target == (uint32_t)node)
        return real(socket, to, length);
    relay.sin_addr.s_addr = htonl((address & ~0xffu) | (100 + 10 * (uint32_t)node + target));
    __sync_fetch_and_add(&control->redirected, 1);
    return real(socket, (const struct sockaddr *)&relay, sizeof relay);
}
