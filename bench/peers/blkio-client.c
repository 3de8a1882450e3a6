/*
 * The client of `npm run peers -- disk`: a virtio-blk driver on libblkio (virtio-blk-vhost-user)
 * with one queue, one thread, and a fixed number of requests on their way.
 *
 *   blkio-client --socket PATH --rw read|write|randread|randwrite --bs BYTES --depth N
 *                [--mode interrupt|poll] [--size BYTES] [--seed N] [--verify]
 *
 * It says `ready BYTES` once it is connected (the size of the disk), then takes lines from its
 * standard input until that ends:
 *
 *   run WARMUP SECONDS    issues requests for WARMUP seconds, then SECONDS more, which count, then
 *                         waits for those on their way; answers with one line of JSON:
 *     {"seconds":s,"requests":n,"bytes":n,"iops":n,"bytes_per_s":n,
 *      "latency_ns":{"min":n,"p50":n,"p99":n,"max":n},"cpu_s":s,"waits":n,"verified":n}
 *
 * `cpu_s` is the client's own processor time in the SECONDS, `waits` how often it slept there.
 * With --verify everything is written with a pattern of its place and generation: reads check
 * theirs, writes are read back and checked after the SECONDS; `verified` counts those blocks.
 *
 * Modes, after blkio(3): `interrupt` sleeps in a read of the queue's completion eventfd when
 * nothing is complete, and has events suppressed while it works; `poll` has a poll queue and never
 * sleeps.
 */
#define _GNU_SOURCE
#include <blkio.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAX_DEPTH = 256, ALIGNMENT = 4096 };

/*
 * Latencies are counted in buckets of equal relative width: values below 2^SUB_BITS exactly, above
 * that 2^(SUB_BITS - 1) buckets to each power of two, so the error is less than 1 in 128.
 */
enum { SUB_BITS = 8, HALF = 1 << (SUB_BITS - 1), BUCKETS = (64 - SUB_BITS + 2) * HALF };

struct histogram {
    uint64_t counts[BUCKETS];
    uint64_t total, min, max;
};

struct request {
    unsigned char *buffer;
    uint64_t block;
    uint64_t sent; /* ns */
};

struct options {
    const char *socket;
    const char *rw;
    uint64_t bs;
    int depth;
    bool poll, verify, random, write;
    uint64_t size, seed;
};

static struct options options = { .seed = 1 };
static struct blkio *blkio;
static struct blkioq *queue;
static int completion_fd;
static struct request requests[MAX_DEPTH];
static struct blkio_completion completions[MAX_DEPTH];
static struct histogram latencies;
static uint64_t blocks, next_block, random_state, verified, waits;
/* With --verify: how often each block was written, and whether a request for it is on its way. */
static uint32_t *generations;
static bool *busy;

static _Noreturn void fail(const char *format, ...) {
    va_list arguments;
    fputs("blkio-client: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static void check(int result, const char *what) {
    if (result < 0) fail("%s: %s", what, blkio_get_error_msg());
}

static uint64_t now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static int bucket_of(uint64_t value) {
    if (value < 1u << SUB_BITS) return (int)value;
    int shift = 63 - __builtin_clzll(value) - (SUB_BITS - 1);
    return shift * HALF + (int)(value >> shift);
}

/* The middle of a bucket. */
static uint64_t value_of(int bucket) {
    if (bucket < 1 << SUB_BITS) return (uint64_t)bucket;
    int shift = bucket / HALF - 1;
    uint64_t low = (uint64_t)(bucket - shift * HALF) << shift;
    return low + ((1ull << shift) >> 1);
}

static void count(struct histogram *histogram, uint64_t value) {
    histogram->counts[bucket_of(value)]++;
    histogram->total++;
    if (value < histogram->min) histogram->min = value;
    if (value > histogram->max) histogram->max = value;
}

static uint64_t percentile(const struct histogram *histogram, uint64_t per_cent) {
    uint64_t rank = (histogram->total * per_cent + 99) / 100, seen = 0;
    for (int bucket = 0; bucket < BUCKETS; bucket++) {
        seen += histogram->counts[bucket];
        if (seen >= rank && seen > 0) return value_of(bucket);
    }
    return 0;
}

/* SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014). */
static uint64_t split_mix(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* The first value of a block's pattern; the next ones follow it. */
static uint64_t pattern_of(uint64_t block) {
    uint64_t state = options.seed ^ block << 32 ^ generations[block];
    return split_mix(&state);
}

static void fill(unsigned char *buffer, uint64_t block) {
    uint64_t state = pattern_of(block), *words = (uint64_t *)buffer;
    for (uint64_t i = 0; i < options.bs / 8; i++) words[i] = split_mix(&state);
}

static void verify(const unsigned char *buffer, uint64_t block) {
    uint64_t state = pattern_of(block);
    const uint64_t *words = (const uint64_t *)buffer;
    for (uint64_t i = 0; i < options.bs / 8; i++)
        if (words[i] != split_mix(&state))
            fail("wrong data at byte %" PRIu64 " of the disk", block * options.bs + i * 8);
    verified++;
}

static uint64_t choose_block(void) {
    for (;;) {
        uint64_t block;
        if (options.random) {
            block = (uint64_t)((unsigned __int128)split_mix(&random_state) * blocks >> 64);
        } else {
            block = next_block;
            next_block = next_block + 1 == blocks ? 0 : next_block + 1;
        }
        /* Of two writes to one block at a time nobody knows which is the last. */
        if (!options.verify || !busy[block]) return block;
    }
}

static void submit(struct request *request, uint64_t block, bool write, uint64_t time) {
    request->block = block;
    request->sent = time;
    if (options.verify) {
        busy[block] = true;
        if (write) {
            generations[block]++;
            fill(request->buffer, block);
        }
    }
    uint64_t start = block * options.bs;
    if (write) blkioq_write(queue, start, request->buffer, options.bs, request, 0);
    else blkioq_read(queue, start, request->buffer, options.bs, request, 0);
}

/* Sends what was submitted and takes what is complete; waits until there is something. */
static int wait_for_some(int most) {
    int done;
    for (;;) {
        done = blkioq_do_io(queue, completions, 0, most, NULL);
        check(done, "do_io");
        if (done > 0) return done;
        if (options.poll) continue;
        blkioq_set_completion_fd_enabled(queue, true);
        /* Something may have completed before events were wanted. */
        done = blkioq_do_io(queue, completions, 0, most, NULL);
        check(done, "do_io");
        if (done == 0) {
            uint64_t event;
            waits++;
            if (read(completion_fd, &event, sizeof(event)) < 0 && errno != EINTR)
                fail("completion eventfd: %s", strerror(errno));
        }
        blkioq_set_completion_fd_enabled(queue, false);
        if (done > 0) return done;
    }
}

static struct request *completed(int index, bool write) {
    struct request *request = completions[index].user_data;
    if (completions[index].ret != 0)
        fail("%s of %" PRIu64 " bytes at %" PRIu64 ": %s", write ? "write" : "read", options.bs,
             request->block * options.bs, strerror(-completions[index].ret));
    if (options.verify) {
        if (!write) verify(request->buffer, request->block);
        busy[request->block] = false;
    }
    return request;
}

/* Writes each block once, or reads each back and checks it. */
static void pass_over_all(bool write) {
    uint64_t next = 0, left = blocks;
    for (int i = 0; i < options.depth && next < blocks; i++, next++)
        submit(&requests[i], next, write, 0);
    while (left > 0) {
        int done = wait_for_some(options.depth);
        for (int i = 0; i < done; i++, left--) {
            struct request *request = completed(i, write);
            if (next < blocks) submit(request, next++, write, 0);
        }
    }
}

static void run(double warm_up, double seconds) {
    memset(&latencies, 0, sizeof(latencies));
    latencies.min = UINT64_MAX;
    verified = 0;
    uint64_t time = now(CLOCK_MONOTONIC);
    uint64_t begin = time + (uint64_t)(warm_up * 1e9), end = begin + (uint64_t)(seconds * 1e9);
    uint64_t measured = 0, cpu = 0, slept = 0;
    bool counts = false;
    for (int i = 0; i < options.depth; i++)
        submit(&requests[i], choose_block(), options.write, time);
    int in_flight = options.depth;
    while (in_flight > 0) {
        int done = wait_for_some(options.depth);
        /* One look at the clock for all of them: the end of these, the beginning of the next. */
        time = now(CLOCK_MONOTONIC);
        if (counts) {
            for (int i = 0; i < done; i++)
                count(&latencies, time - ((struct request *)completions[i].user_data)->sent);
            if (time >= end) {
                counts = false;
                measured = time - begin;
                cpu = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
                slept = waits - slept;
            }
        } else if (measured == 0 && time >= begin) {
            counts = true;
            end += time - begin;
            begin = time;
            cpu = now(CLOCK_PROCESS_CPUTIME_ID);
            slept = waits;
        }
        for (int i = 0; i < done; i++) {
            struct request *request = completed(i, options.write);
            if (measured > 0) in_flight--;
            else submit(request, choose_block(), options.write, time);
        }
        if (options.verify && measured == 0) {
            /* Patterns take their time: it is the client's, not the disk's. */
            uint64_t later = now(CLOCK_MONOTONIC);
            for (int i = 0; i < done; i++)
                ((struct request *)completions[i].user_data)->sent = later;
        }
    }
    if (options.verify && options.write) pass_over_all(false);
    double took = (double)measured / 1e9;
    uint64_t bytes = latencies.total * options.bs;
    printf("{\"seconds\":%.6f,\"requests\":%" PRIu64 ",\"bytes\":%" PRIu64
           ",\"iops\":%.1f,\"bytes_per_s\":%.1f,"
           "\"latency_ns\":{\"min\":%" PRIu64 ",\"p50\":%" PRIu64 ",\"p99\":%" PRIu64
           ",\"max\":%" PRIu64 "},\"cpu_s\":%.6f,\"waits\":%" PRIu64 ",\"verified\":%" PRIu64 "}\n",
           took, latencies.total, bytes, (double)latencies.total / took, (double)bytes / took,
           latencies.total == 0 ? 0 : latencies.min, percentile(&latencies, 50),
           percentile(&latencies, 99), latencies.max, (double)cpu / 1e9, slept, verified);
}

static uint64_t whole(const char *name, const char *text, uint64_t least, uint64_t most) {
    char *end;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (errno != 0 || *text < '0' || *text > '9' || *end != 0 || value < least || value > most)
        fail("--%s: expected %" PRIu64 " to %" PRIu64 ", not %s", name, least, most, text);
    return value;
}

static void parse(int argc, char **argv) {
    static const struct option names[] = {
        { "socket", required_argument, NULL, 's' }, { "rw", required_argument, NULL, 'r' },
        { "bs", required_argument, NULL, 'b' },     { "depth", required_argument, NULL, 'd' },
        { "mode", required_argument, NULL, 'm' },   { "size", required_argument, NULL, 'z' },
        { "seed", required_argument, NULL, 'x' },   { "verify", no_argument, NULL, 'v' },
        { NULL, 0, NULL, 0 },
    };
    for (int option; (option = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (option) {
        case 's': options.socket = optarg; break;
        case 'r': options.rw = optarg; break;
        case 'b': options.bs = whole("bs", optarg, 512, 1u << 30); break;
        case 'd': options.depth = (int)whole("depth", optarg, 1, MAX_DEPTH); break;
        case 'm':
            options.poll = strcmp(optarg, "poll") == 0;
            if (!options.poll && strcmp(optarg, "interrupt") != 0)
                fail("--mode: expected interrupt or poll, not %s", optarg);
            break;
        case 'z': options.size = whole("size", optarg, 512, UINT64_MAX); break;
        case 'x': options.seed = whole("seed", optarg, 0, UINT64_MAX); break;
        case 'v': options.verify = true; break;
        default: exit(2);
        }
    }
    if (options.socket == NULL || options.rw == NULL || options.bs == 0 || options.depth == 0 ||
        optind != argc)
        fail("--socket, --rw, --bs and --depth are needed, and nothing else but options");
    if (options.bs % 512 != 0) fail("--bs: expected a multiple of 512, not %" PRIu64, options.bs);
    options.random = strncmp(options.rw, "rand", 4) == 0;
    const char *direction = options.rw + (options.random ? 4 : 0);
    options.write = strcmp(direction, "write") == 0;
    if (!options.write && strcmp(direction, "read") != 0)
        fail("--rw: expected read, write, randread or randwrite, not %s", options.rw);
}

/* Connects, and has memory that the server can reach for each request. */
static void connect_to_disk(void) {
    check(blkio_create("virtio-blk-vhost-user", &blkio), "virtio-blk-vhost-user");
    check(blkio_set_str(blkio, "path", options.socket), options.socket);
    check(blkio_connect(blkio), options.socket);
    check(blkio_set_int(blkio, "num-queues", options.poll ? 0 : 1), "num-queues");
    check(blkio_set_int(blkio, "num-poll-queues", options.poll ? 1 : 0), "num-poll-queues");
    check(blkio_start(blkio), "start");

    uint64_t capacity;
    check(blkio_get_uint64(blkio, "capacity", &capacity), "capacity");
    if (options.size == 0) options.size = capacity;
    if (options.size > capacity)
        fail("--size: the disk has %" PRIu64 " bytes only", capacity);
    blocks = options.size / options.bs;
    if (blocks < (uint64_t)options.depth)
        fail("the disk has fewer blocks (%" PRIu64 ") than there are requests", blocks);

    struct blkio_mem_region region;
    uint64_t stride = (options.bs + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    check(blkio_alloc_mem_region(blkio, &region, stride * (uint64_t)options.depth), "memory");
    check(blkio_map_mem_region(blkio, &region), "memory");
    uint64_t state = options.seed;
    for (int i = 0; i < options.depth; i++) {
        requests[i].buffer = (unsigned char *)region.addr + stride * (uint64_t)i;
        uint64_t *words = (uint64_t *)requests[i].buffer;
        for (uint64_t word = 0; word < stride / 8; word++) words[word] = split_mix(&state);
    }

    if (options.poll) {
        queue = blkio_get_poll_queue(blkio, 0);
        return;
    }
    queue = blkio_get_queue(blkio, 0);
    completion_fd = blkioq_get_completion_fd(queue);
    if (fcntl(completion_fd, F_SETFL, fcntl(completion_fd, F_GETFL) & ~O_NONBLOCK) != 0)
        fail("completion eventfd: %s", strerror(errno));
}

int main(int argc, char **argv) {
    parse(argc, argv);
    setvbuf(stdout, NULL, _IOLBF, 0);
    connect_to_disk();
    random_state = options.seed;
    if (options.verify) {
        generations = calloc(blocks, sizeof(*generations));
        busy = calloc(blocks, sizeof(*busy));
        if (generations == NULL || busy == NULL) fail("no memory for %" PRIu64 " blocks", blocks);
        pass_over_all(true);
    }
    printf("ready %" PRIu64 "\n", options.size);

    char line[128];
    while (fgets(line, sizeof(line), stdin) != NULL) {
        double warm_up, seconds;
        char more;
        if (sscanf(line, "run %lf %lf %c", &warm_up, &seconds, &more) != 2 || !(warm_up >= 0) ||
            !(seconds > 0) || warm_up > 86400 || seconds > 86400)
            fail("expected `run WARMUP SECONDS`, not %s", line);
        run(warm_up, seconds);
    }
    blkio_destroy(&blkio);
    return 0;
}
