/*
 * The client of the measurement of traps: reads a register of a vfio-user function again and again, one
 * read after the other, each timed. Or, for comparison, the same client against a server of its own that
 * does nothing but answer: what is left then is the machine's.
 *
 *   trap-client CPU TRAPS --socket PATH    a function's socket, which somebody else serves
 *   trap-client CPU TRAPS --echo CPU       a server in C on that processor
 *
 * It answers with one line of JSON, in microseconds: {"median":n,"p99":n,"traps":n}. On a machine that has
 * no time for it, it makes fewer traps than TRAPS: it ends after 12 seconds.
 *
 * The server in C makes the calls that a lane has to make for a trap: it waits for the message, receives
 * it with room for descriptors, and sends the answer. On the client's own processor it sleeps in poll(2)
 * while it waits, on another one it looks again and again, as a lane does that was just used.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Traps before those that count: the lane's code is compiled meanwhile. */
enum { WARMUP = 20000 };

/* Longest time for those before, and for those that count, in ns. */
static const uint64_t WARMUP_NS = 2000000000u, MEASURE_NS = 10000000000u;

/* The vfio-user specification: "Header", "VFIO_USER_VERSION", "VFIO_USER_REGION_READ". */
enum { VERSION = 1, REGION_READ = 9, REGION_CONFIG = 7, FLAG_REPLY = 1, FLAG_ERROR = 1 << 5 };

struct header {
    uint16_t id, command;
    uint32_t size, flags, error;
};

struct version {
    struct header header;
    uint16_t major, minor;
};

struct read_request {
    struct header header;
    uint64_t offset;
    uint32_t region, count;
};

struct read_reply {
    struct read_request request;
    uint32_t value;
};

enum { READ_REPLY_BYTES = sizeof(struct read_request) + sizeof(uint32_t) };

static _Noreturn void fail(const char *what) {
    fprintf(stderr, "trap-client: %s: %s\n", what, strerror(errno));
    exit(1);
}

static _Noreturn void refuse(const char *why) {
    fprintf(stderr, "trap-client: %s\n", why);
    exit(1);
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void pin(int cpu) {
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(cpu, &cpus);
    if (sched_setaffinity(0, sizeof cpus, &cpus) != 0) fail("sched_setaffinity");
}

static int number(const char *text) {
    char *end;
    long value = strtol(text, &end, 10);
    if (end == text || *end != '\0' || value < 0 || value > 100000000) refuse("no number");
    return (int)value;
}

static void send_whole(int fd, const void *message, size_t bytes) {
    if (send(fd, message, bytes, MSG_NOSIGNAL) != (ssize_t)bytes) fail("send");
}

/* Waits in poll(2), as event loops do: a recv(2) that waits is woken when the other end reads, too. */
static void receive(int fd, void *into, size_t bytes) {
    for (size_t got = 0; got < bytes;) {
        struct pollfd ready = { .fd = fd, .events = POLLIN };
        if (poll(&ready, 1, -1) < 0) fail("poll");
        ssize_t count = recv(fd, (char *)into + got, bytes - got, 0);
        if (count < 0) fail("recv");
        if (count == 0) refuse("the server has closed the connection");
        got += (size_t)count;
    }
}

/* The rest of a message whose header has come. */
static void skip(int fd, const struct header *header) {
    char byte;
    for (uint32_t left = le32toh(header->size) - sizeof *header; left > 0; left--)
        receive(fd, &byte, 1);
}

static int connect_to(const char *path) {
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof address.sun_path) refuse("the socket's path is too long");
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0) fail("socket");
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) fail(path);
    /* Version 0.0, and nothing that the defaults do not say. */
    struct version version = {
        .header = { .command = htole16(VERSION), .size = htole32(sizeof version) },
    };
    send_whole(fd, &version, sizeof version);
    struct header reply;
    receive(fd, &reply, sizeof reply);
    if ((le32toh(reply.flags) & FLAG_ERROR) != 0) refuse("the server refused the version");
    skip(fd, &reply);
    return fd;
}

/* Answers until the client has gone. */
static _Noreturn void echo(int fd, int cpu, bool spins) {
    pin(cpu);
    struct read_reply message;
    char control[1024];
    for (;;) {
        struct pollfd ready = { .fd = fd, .events = POLLIN };
        if (!spins && poll(&ready, 1, -1) < 0) fail("poll");
        struct iovec part = { .iov_base = &message, .iov_len = sizeof message };
        struct msghdr header = {
            .msg_iov = &part,
            .msg_iovlen = 1,
            .msg_control = control,
            .msg_controllen = sizeof control,
        };
        ssize_t count = recvmsg(fd, &header, MSG_DONTWAIT);
        if (count < 0 && errno == EAGAIN) continue;
        if (count < 0) fail("recvmsg");
        if (count == 0) exit(0);
        message.request.header.size = htole32(READ_REPLY_BYTES);
        message.request.header.flags = htole32(FLAG_REPLY);
        part.iov_len = READ_REPLY_BYTES;
        header.msg_control = NULL;
        header.msg_controllen = 0;
        if (sendmsg(fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL) != READ_REPLY_BYTES) fail("sendmsg");
    }
}

static int start_echo(int cpu, int client_cpu) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) fail("socketpair");
    pid_t child = fork();
    if (child < 0) fail("fork");
    if (child == 0) {
        close(ends[0]);
        echo(ends[1], cpu, cpu != client_cpu);
    }
    close(ends[1]);
    return ends[0];
}

static void trap(int fd, uint16_t id) {
    struct read_request request = {
        .header = {
            .id = htole16(id),
            .command = htole16(REGION_READ),
            .size = htole32(sizeof request),
        },
        .region = htole32(REGION_CONFIG),
        .count = htole32(sizeof(uint32_t)),
    };
    struct read_reply reply;
    send_whole(fd, &request, sizeof request);
    receive(fd, &reply, READ_REPLY_BYTES);
    const struct header *header = &reply.request.header;
    if (le16toh(header->id) != id || le32toh(header->flags) != FLAG_REPLY ||
        le32toh(header->size) != READ_REPLY_BYTES)
        refuse("an answer to something else");
}

static int compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv) {
    if (argc != 5) refuse("usage: trap-client CPU TRAPS --socket PATH | --echo CPU");
    int cpu = number(argv[1]);
    size_t traps = (size_t)number(argv[2]);
    bool is_echo = strcmp(argv[3], "--echo") == 0;
    if (traps == 0 || (!is_echo && strcmp(argv[3], "--socket") != 0)) refuse("nothing to measure");
    uint64_t *times = calloc(traps, sizeof *times);
    if (times == NULL) fail("calloc");
    pin(cpu);
    int fd = is_echo ? start_echo(number(argv[4]), cpu) : connect_to(argv[4]);
    uint64_t began = now();
    for (int i = 0; i < WARMUP && now() - began < WARMUP_NS; i++) trap(fd, (uint16_t)i);
    began = now();
    size_t done = 0;
    for (uint64_t start = began; done < traps && start - began < MEASURE_NS;) {
        trap(fd, (uint16_t)done);
        uint64_t end = now();
        times[done++] = end - start;
        start = end;
    }
    close(fd);
    if (is_echo) wait(NULL);
    qsort(times, done, sizeof *times, compare);
    printf("{\"median\":%.3f,\"p99\":%.3f,\"traps\":%zu}\n", (double)times[(done - 1) / 2] / 1e3,
           (double)times[(done - 1) * 99 / 100] / 1e3, done);
    return 0;
}
