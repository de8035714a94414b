/* An OpenAI-compatible streaming server whose timing is known exactly; mock_server.py builds, starts and reads it.

   cc -O2 -o mock_server mock_server.c
   ./mock_server [--port N] [--ttft-ms X] [--itl-ms X] [--unlimited] [--tokens N] [--model NAME] [--log FILE]
                 [--stall REQUESTS,SECONDS] [--header "Name: value"] [--shared]

   One thread, epoll. A token is one chunk of the stream, one HTTP chunk and one send(), as vLLM makes them: chat streams
   begin with a role chunk, which goes out with the headers right before the first token; the last token carries the
   finish reason; usage (where asked for) and [DONE] follow. Token k of a request is due at its arrival + ttft + k * itl,
   where the arrival is the kernel's receive timestamp of the request's last byte. `--unlimited` waits for nothing and
   gives the streams one token each in turn. The content of the first token is `[rNNNNNNNNNN]`, the request's number;
   the same number is in the chunks' id and in the header x-mock-request.

   `--stall 800,2`: when 800 requests have arrived, the process does nothing at all for 2 s.
   `--shared`: several of these processes may have the same port; the kernel spreads the connections over them.

   The log holds, for each completion request, in the order in which they ended (struct entry, then the tokens' times):
   the kernel's receive timestamps of its first and last byte, and the time right before each token's send. All times
   are CLOCK_REALTIME ns. At the end (SIGTERM, SIGINT) one line of JSON says how busy the process was.

   It speaks as much HTTP/1.1 as clients need: keep-alive, pipelining, chunked request bodies, Expect: 100-continue.
   A prompt's tokens are its words (and one for a message's role); nothing is understood of it. */

#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MAX_TOKENS (1 << 20)
#define MAX_REQUEST (64u << 20)
#define MAX_STALLS 8

/* ---- Options ---- */

static int port = 0;
static int64_t ttft_ns = 50000000, itl_ns = 10000000;
static bool unlimited = false, shared = false;
static int default_tokens = 128;
static const char *model = "mock-model";
static const char *extra_header = "";
static FILE *log_file = NULL;
static struct { uint64_t after; int64_t length, from, to; } stalls[MAX_STALLS];
static int stall_count = 0;

/* ---- What is kept ---- */

struct entry { /* of the log; mock_server.py has the same layout */
    uint64_t number;
    int64_t first_ns, last_ns; /* kernel's receive timestamps of the request's first and last byte */
    int64_t end_ns;            /* right before the last send; of a broken stream, when it was noticed */
    int32_t connection, sent, asked;
    uint8_t chat, stream, complete, kernel_time;
    char request_id[64]; /* the client's x-request-id */
};

struct buffer { char *data; size_t length, offset, capacity; };

struct connection {
    int fd, id;
    uint32_t sequence; /* changes when the connection's answer ends: queue entries of an older one are void */
    struct buffer in, out;
    int64_t first_ns, last_ns;
    bool kernel_time, busy, close, continued, blocked, usage;
    struct entry entry;
    int prompt_tokens;
    char prefix[320]; /* of each chunk, up to the choices */
    int prefix_length;
    int64_t *times;
    int times_capacity;
    struct connection *next_free;
};

struct due { int64_t at; struct connection *connection; uint32_t sequence; };

static struct due *heap, *ring;
static size_t heap_length, heap_capacity, ring_head, ring_length, ring_capacity;
static struct connection *free_connections;
static int epoll_fd, listen_fd, connections_made;
static volatile sig_atomic_t stopping;
static uint64_t requests, completed, tokens_sent, prompt_tokens_seen, running, blocked_sends, without_kernel_time;
static int64_t first_request_ns, last_end_ns, idle_ns, idle_until_end_ns;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void *grow(void *data, size_t size) {
    void *grown = realloc(data, size);
    if (!grown) die("memory");
    return grown;
}

static void append(struct buffer *b, const void *data, size_t length) {
    if (b->length + length > b->capacity) {
        b->capacity = (b->length + length) * 2;
        b->data = grow(b->data, b->capacity);
    }
    memcpy(b->data + b->length, data, length);
    b->length += length;
}

/* ---- Who is next: a heap by time, or a ring where nothing waits ---- */

static void heap_push(struct due item) {
    if (heap_length == heap_capacity) heap = grow(heap, (heap_capacity = heap_capacity * 2 + 64) * sizeof *heap);
    size_t i = heap_length++;
    for (; i && heap[(i - 1) / 2].at > item.at; i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
    heap[i] = item;
}

static struct due heap_pop(void) {
    struct due top = heap[0], last = heap[--heap_length];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < heap_length; i = child) {
        if (child + 1 < heap_length && heap[child + 1].at < heap[child].at) child++;
        if (heap[child].at >= last.at) break;
        heap[i] = heap[child];
    }
    heap[i] = last;
    return top;
}

static void ring_push(struct due item) {
    if (ring_length == ring_capacity) {
        size_t old = ring_capacity;
        ring = grow(ring, (ring_capacity = old * 2 + 64) * sizeof *ring);
        size_t wrapped = old ? ring_head : 0; /* the entries before the head belong behind the old end */
        for (size_t i = 0; i < wrapped; i++) ring[(old + i) % ring_capacity] = ring[i];
    }
    ring[(ring_head + ring_length++) % ring_capacity] = item;
}

static struct due ring_pop(void) {
    struct due item = ring[ring_head];
    ring_head = (ring_head + 1) % ring_capacity;
    ring_length--;
    return item;
}

static void schedule(struct connection *c) {
    int token = c->entry.stream ? c->entry.sent : c->entry.asked - 1;
    int64_t at = c->entry.last_ns + ttft_ns + token * itl_ns;
    struct due item = {at, c, c->sequence};
    if (unlimited) ring_push(item);
    else heap_push(item);
}

/* ---- Connections ---- */

static void watch(struct connection *c, int operation) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | (c->blocked ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(epoll_fd, operation, c->fd, &event);
}

static void write_entry(struct connection *c, bool complete) {
    c->entry.complete = complete;
    c->entry.end_ns = complete ? c->entry.end_ns : now_ns();
    c->entry.kernel_time = c->kernel_time;
    if (!log_file) return;
    fwrite(&c->entry, sizeof c->entry, 1, log_file);
    fwrite(c->times, sizeof *c->times, c->entry.sent, log_file);
}

static void end_answer(struct connection *c, bool complete) {
    write_entry(c, complete);
    c->busy = false;
    c->sequence++;
    running--;
    completed += complete;
    last_end_ns = c->entry.end_ns;
    idle_until_end_ns = idle_ns;
}

static void hang_up(struct connection *c) {
    if (c->busy) end_answer(c, false);
    c->sequence++;
    close(c->fd);
    c->fd = -1;
    c->in.length = c->in.offset = c->out.length = c->out.offset = 0;
    c->next_free = free_connections;
    free_connections = c;
}

static void accept_all(void) {
    int fd, on = 1;
    while ((fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct connection *c = free_connections;
        if (c) free_connections = c->next_free;
        else c = grow(NULL, sizeof *c), memset(c, 0, sizeof *c);
        c->fd = fd;
        c->id = connections_made++;
        c->busy = c->close = c->continued = c->blocked = false;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(c, EPOLL_CTL_ADD);
    }
}

/* Send, keeping what the socket does not take; false: the connection is gone. */
static bool put(struct connection *c, const char *data, size_t length) {
    ssize_t sent = 0;
    if (!c->blocked) {
        sent = send(c->fd, data, length, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) return hang_up(c), false;
        if (sent < 0) sent = 0;
    }
    if ((size_t)sent < length) {
        append(&c->out, data + sent, length - sent);
        if (!c->blocked) {
            c->blocked = true;
            blocked_sends++;
            watch(c, EPOLL_CTL_MOD);
        }
    }
    return true;
}

/* ---- The body: as much of JSON as is asked for ---- */

struct ask {
    int tokens, prompt_tokens;
    bool stream, usage;
    char model[128];
};

static const char *space(const char *p, const char *end) {
    while (p < end && isspace((unsigned char)*p)) p++;
    return p;
}

static const char *string_end(const char *p, const char *end) { /* p: behind the opening quote */
    while (p < end && *p != '"') p += *p == '\\' ? 2 : 1;
    return p < end ? p : end;
}

static int words(const char *p, const char *end) {
    int count = 0;
    for (bool inside = false; p < end; p++) {
        bool blank = isspace((unsigned char)*p);
        count += !blank && !inside;
        inside = !blank;
    }
    return count;
}

/* The end of a value; the words of its strings that are not keys, and its numbers, are counted. */
static const char *value_end(const char *p, const char *end, int *count) {
    int depth = 0;
    do {
        p = space(p, end);
        if (p >= end) return end;
        if (*p == '"') {
            const char *text = p + 1;
            p = string_end(text, end);
            const char *after = space(p < end ? p + 1 : end, end);
            if (after >= end || *after != ':') *count += words(text, p);
            p = p < end ? p + 1 : end;
        } else if (*p == '{' || *p == '[') depth++, p++;
        else if (*p == '}' || *p == ']') depth--, p++;
        else if (*p == ',' || *p == ':') p++;
        else {
            *count += isdigit((unsigned char)*p) || *p == '-';
            while (p < end && !strchr(",]} \t\r\n", *p)) p++;
        }
    } while (depth > 0);
    return p;
}

static struct ask read_body(const char *p, size_t length) {
    struct ask ask = {.tokens = default_tokens};
    const char *end = p + length;
    p = space(p, end);
    if (p < end && *p == '{') p++;
    while ((p = space(p, end)) < end && *p == '"') {
        const char *key = p + 1, *key_end = string_end(key, end);
        size_t key_length = key_end - key;
        p = space(key_end < end ? key_end + 1 : end, end);
        if (p < end && *p == ':') p = space(p + 1, end);
        int count = 0;
        const char *value = p;
        p = value_end(p, end, &count);
#define KEY(name) (key_length == sizeof name - 1 && !memcmp(key, name, key_length))
        if (KEY("messages") || KEY("prompt")) ask.prompt_tokens += count;
        else if (KEY("stream")) ask.stream = value < end && *value == 't';
        else if (KEY("max_tokens") || KEY("max_completion_tokens")) {
            if (value < end && isdigit((unsigned char)*value)) ask.tokens = atoi(value);
        } else if (KEY("stream_options")) {
            const char *found = memmem(value, p - value, "\"include_usage\"", 15);
            if (found) found = memchr(found, ':', p - found);
            if (found) found = space(found + 1, p), ask.usage = found < p && *found == 't';
        } else if (KEY("model") && value < end && *value == '"') {
            size_t size = string_end(value + 1, end) - value - 1;
            if (size < sizeof ask.model) memcpy(ask.model, value + 1, size);
        }
#undef KEY
        p = space(p, end);
        if (p < end && *p == ',') p++;
    }
    if (ask.tokens < 1) ask.tokens = 1;
    if (ask.tokens > MAX_TOKENS) ask.tokens = MAX_TOKENS;
    return ask;
}

/* ---- Answers ---- */

static void reply(struct connection *c, bool head, const char *status, const char *type, const char *format, ...) {
    static char body[1 << 16], message[(1 << 16) + 512];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(body, sizeof body, format, arguments);
    va_end(arguments);
    if (length >= (int)sizeof body) length = sizeof body - 1;
    int size = snprintf(message, sizeof message,
                        "HTTP/1.1 %s\r\nserver: orch-mock\r\ncontent-type: %s\r\ncontent-length: %d\r\n%s\r\n%s", status,
                        type, length, c->close ? "connection: close\r\n" : "", head ? "" : body);
    put(c, message, size);
}

#define JSON "application/json"

static const char WORDS[8][7] = {" river", " stone", " under", " light", " never", " seven", " tower", " quiet"};

/* One HTTP chunk around one event around one delta; its length. */
static size_t frame(char *out, const struct connection *c, const char *content, size_t content_length, bool role,
                    bool last) {
    static const char digits[] = "0123456789abcdef";
    char *p = out + 5; /* room for three hexadecimal digits and the end of their line */
#define ADD(text) (memcpy(p, text, sizeof text - 1), p += sizeof text - 1)
    memcpy(p, c->prefix, c->prefix_length), p += c->prefix_length;
    if (!c->entry.chat) ADD("{\"index\":0,\"text\":\"");
    else if (role) ADD("{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"");
    else ADD("{\"index\":0,\"delta\":{\"content\":\"");
    memcpy(p, content, content_length), p += content_length;
    if (c->entry.chat) ADD("\"},\"logprobs\":null,\"finish_reason\":");
    else ADD("\",\"logprobs\":null,\"finish_reason\":");
    if (last) ADD("\"length\"");
    else ADD("null");
    ADD(",\"stop_reason\":null,\"token_ids\":null}]}\n\n");
    size_t size = p - out - 5;
    out[0] = digits[size >> 8 & 15], out[1] = digits[size >> 4 & 15], out[2] = digits[size & 15];
    out[3] = '\r', out[4] = '\n';
    ADD("\r\n");
#undef ADD
    return p - out;
}

static bool send_head(struct connection *c) {
    char out[2048];
    int size = snprintf(out, sizeof out,
                        "HTTP/1.1 200 OK\r\nserver: orch-mock\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                        "x-mock-request: %llu\r\n%s%s%stransfer-encoding: chunked\r\n\r\n",
                        (unsigned long long)c->entry.number, extra_header, *extra_header ? "\r\n" : "",
                        c->close ? "connection: close\r\n" : "");
    if (c->entry.chat) size += frame(out + size, c, "", 0, true, false);
    return put(c, out, size);
}

static bool send_tail(struct connection *c) {
    char event[640], out[1024];
    int size = 0;
    if (c->usage) {
        int length = snprintf(event, sizeof event,
                              "%.*s],\"usage\":{\"prompt_tokens\":%d,\"total_tokens\":%d,\"completion_tokens\":%d}}\n\n",
                              c->prefix_length, c->prefix, c->prompt_tokens, c->prompt_tokens + c->entry.sent,
                              c->entry.sent);
        size = snprintf(out, sizeof out, "%x\r\n%s\r\n", length, event);
    }
    size += snprintf(out + size, sizeof out - size, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
    c->entry.end_ns = now_ns();
    return put(c, out, size);
}

static bool send_token(struct connection *c) {
    char out[1024], number[24];
    const char *content = WORDS[c->entry.sent & 7];
    size_t length = 6;
    if (c->entry.sent == 0) {
        length = snprintf(number, sizeof number, "[r%010llu]", (unsigned long long)c->entry.number);
        content = number;
        if (!send_head(c)) return false;
    }
    size_t size = frame(out, c, content, length, false, c->entry.sent + 1 == c->entry.asked);
    c->times[c->entry.sent] = now_ns();
    tokens_sent++;
    c->entry.sent++; /* before the send: a connection that breaks in it has been logged with it */
    return put(c, out, size);
}

static void send_whole(struct connection *c) {
    int size = c->entry.asked;
    char *text = grow(NULL, (size_t)size * 7 + 32), *p = text;
    p += sprintf(p, "[r%010llu]", (unsigned long long)c->entry.number);
    for (int i = 1; i < size; i++) memcpy(p, WORDS[i & 7], 6), p += 6;
    *p = 0;
    char *body = grow(NULL, (size_t)(p - text) + 1024);
    int length = sprintf(body,
                         c->entry.chat
                             ? "{\"id\":\"chatcmpl-%016llx\",\"object\":\"chat.completion\",\"created\":1764000000,\"model\":\"%s\",\"choices\":"
                               "[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"%s\"},\"finish_reason\":\"length\"}],\"usage\":"
                               "{\"prompt_tokens\":%d,\"total_tokens\":%d,\"completion_tokens\":%d}}"
                             : "{\"id\":\"cmpl-%016llx\",\"object\":\"text_completion\",\"created\":1764000000,\"model\":\"%s\",\"choices\":"
                               "[{\"index\":0,\"text\":\"%s\",\"finish_reason\":\"length\"}],\"usage\":"
                               "{\"prompt_tokens\":%d,\"total_tokens\":%d,\"completion_tokens\":%d}}",
                         (unsigned long long)c->entry.number, model, text, c->prompt_tokens, c->prompt_tokens + size, size);
    char head[512];
    int head_length = snprintf(head, sizeof head,
                               "HTTP/1.1 200 OK\r\nserver: orch-mock\r\ncontent-type: " JSON
                               "\r\nx-mock-request: %llu\r\ncontent-length: %d\r\n%s\r\n",
                               (unsigned long long)c->entry.number, length, c->close ? "connection: close\r\n" : "");
    c->entry.end_ns = now_ns();
    tokens_sent += size;
    if (put(c, head, head_length)) put(c, body, length);
    free(text), free(body);
}

static void parse(struct connection *c);

static void after_answer(struct connection *c) {
    if (c->close && !c->blocked) hang_up(c);
    else if (!c->close) parse(c);
}

/* What is due for this stream now: one token, or the whole answer of a request that is not streamed. */
static void advance(struct connection *c) {
    if (!c->entry.stream) {
        uint32_t sequence = c->sequence;
        send_whole(c);
        if (c->sequence != sequence) return;
    } else {
        if (!send_token(c)) return;
        if (c->entry.sent < c->entry.asked) {
            if (!c->blocked) schedule(c); /* else when the socket takes more */
            return;
        }
        if (!send_tail(c)) return;
    }
    end_answer(c, true);
    after_answer(c);
}

static void flush(struct connection *c) {
    ssize_t sent = send(c->fd, c->out.data + c->out.offset, c->out.length - c->out.offset, MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN) return;
    if (sent < 0) return hang_up(c);
    c->out.offset += sent;
    if (c->out.offset < c->out.length) return;
    c->out.offset = c->out.length = 0;
    c->blocked = false;
    watch(c, EPOLL_CTL_MOD);
    if (c->busy && c->entry.stream && c->entry.sent) schedule(c);
    else if (!c->busy) after_answer(c);
}

/* ---- Requests ---- */

static void begin_answer(struct connection *c, bool chat, struct ask ask, const char *request_id, size_t id_length) {
    if (requests++ == 0) first_request_ns = c->first_ns;
    struct entry *e = &c->entry;
    memset(e, 0, sizeof *e);
    e->number = requests, e->first_ns = c->first_ns, e->last_ns = c->last_ns;
    e->connection = c->id, e->asked = ask.tokens, e->chat = chat, e->stream = ask.stream;
    memcpy(e->request_id, request_id, id_length < sizeof e->request_id - 1 ? id_length : sizeof e->request_id - 1);
    if (c->times_capacity < ask.tokens)
        c->times = grow(c->times, (size_t)(c->times_capacity = ask.tokens) * sizeof *c->times);
    c->prompt_tokens = ask.prompt_tokens, c->usage = ask.usage, c->busy = true;
    c->prefix_length = snprintf(c->prefix, sizeof c->prefix,
                                "data: {\"id\":\"%s-%016llx\",\"object\":\"%s\",\"created\":1764000000,\"model\":\"%s\",\"choices\":[",
                                chat ? "chatcmpl" : "cmpl", (unsigned long long)e->number,
                                chat ? "chat.completion.chunk" : "text_completion", model);
    prompt_tokens_seen += ask.prompt_tokens;
    running++;
    schedule(c);
}

static void completion(struct connection *c, bool chat, const char *body, size_t length, const char *id, size_t id_length) {
    struct ask ask = read_body(body, length);
    if (*ask.model && strcmp(ask.model, model))
        reply(c, false, "404 Not Found", JSON,
              "{\"error\":{\"message\":\"The model `%s` does not exist.\",\"type\":\"NotFoundError\",\"param\":\"model\",\"code\":404}}",
              ask.model);
    else begin_answer(c, chat, ask, id, id_length);
}

static void metrics(struct connection *c, bool head) {
    reply(c, head, "200 OK", "text/plain; version=0.0.4",
          "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{model_name=\"%s\"} %llu\n"
          "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{model_name=\"%s\"} 0\n"
          "# TYPE vllm:prompt_tokens_total counter\nvllm:prompt_tokens_total{model_name=\"%s\"} %llu\n"
          "# TYPE vllm:generation_tokens_total counter\nvllm:generation_tokens_total{model_name=\"%s\"} %llu\n",
          model, (unsigned long long)running, model, model, (unsigned long long)prompt_tokens_seen, model,
          (unsigned long long)tokens_sent);
}

static void tokenize(struct connection *c, const char *body, size_t length) {
    static char list[1 << 15];
    int count = read_body(body, length).prompt_tokens, size = 0;
    for (int i = 0; i < count && size < (int)sizeof list - 16; i++)
        size += snprintf(list + size, sizeof list - size, "%s%d", i ? "," : "", i);
    list[size] = 0;
    reply(c, false, "200 OK", JSON, "{\"count\":%d,\"max_model_len\":131072,\"tokens\":[%s]}", count, list);
}

static void route(struct connection *c, const char *line, const char *body, size_t length, const char *id, size_t id_length) {
    bool head = !strncmp(line, "HEAD ", 5), get = head || !strncmp(line, "GET ", 4), post = !strncmp(line, "POST ", 5);
    const char *path = strchr(line, ' ');
    size_t size = path ? strcspn(++path, " ?") : 0;
#define AT(text) (size == sizeof text - 1 && !memcmp(path, text, size))
    if (post && AT("/v1/chat/completions")) completion(c, true, body, length, id, id_length);
    else if (post && AT("/v1/completions")) completion(c, false, body, length, id, id_length);
    else if (get && AT("/v1/models"))
        reply(c, head, "200 OK", JSON,
              "{\"object\":\"list\",\"data\":[{\"id\":\"%s\",\"object\":\"model\",\"created\":1764000000,\"owned_by\":\"orch-mock\","
              "\"root\":\"%s\",\"parent\":null,\"max_model_len\":131072}]}",
              model, model);
    else if (get && (AT("/health") || AT("/ping") || AT("/v1/health") || AT("/"))) reply(c, head, "200 OK", JSON, "{}");
    else if (get && AT("/metrics")) metrics(c, head);
    else if (post && AT("/tokenize")) tokenize(c, body, length);
    else reply(c, head, "404 Not Found", JSON, "{\"detail\":\"Not Found\"}");
#undef AT
}

static const char *header(const char *head, const char *name, size_t *length) {
    size_t size = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line && line[2]; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, size) || line[2 + size] != ':') continue;
        const char *value = line + 3 + size;
        value += strspn(value, " \t");
        *length = strcspn(value, "\r");
        return value;
    }
    *length = 0;
    return "";
}

/* Join a chunked body in place; -1: not complete, else the bytes that it took. */
static ssize_t join_chunks(char *data, size_t length, size_t *body_length) {
    size_t at = 0, joined = 0;
    for (;;) {
        char *line_end = memmem(data + at, length - at, "\r\n", 2);
        if (!line_end) return -1;
        size_t size = strtoul(data + at, NULL, 16), start = line_end + 2 - data;
        if (size > MAX_REQUEST || start + size + 2 > length) return -1;
        at = start + size + 2;
        if (!size) break;
        joined += size;
    }
    size_t end = at;
    for (at = joined = 0;;) {
        char *line_end = memmem(data + at, length - at, "\r\n", 2);
        size_t size = strtoul(data + at, NULL, 16), start = line_end + 2 - data;
        if (!size) break;
        memmove(data + joined, data + start, size);
        joined += size, at = start + size + 2;
    }
    *body_length = joined;
    return end;
}

/* Take the next complete request from the input, unless an answer is under way. */
static void parse(struct connection *c) {
    while (c->fd >= 0 && !c->busy && c->in.offset < c->in.length) {
        char *data = c->in.data + c->in.offset;
        size_t length = c->in.length - c->in.offset;
        char *end = memmem(data, length, "\r\n\r\n", 4);
        if (!end) break;
        size_t value_length, head_length = end + 4 - data, body_length, taken;
        char last = end[2];
        end[2] = 0; /* the headers are one string meanwhile */
        body_length = strtoul(header(data, "content-length", &value_length), NULL, 10);
        const char *coding = header(data, "transfer-encoding", &value_length);
        bool chunked = value_length >= 7 && !strncasecmp(coding, "chunked", 7);
        const char *expect = header(data, "expect", &value_length);
        bool wants_continue = value_length >= 3 && !strncmp(expect, "100", 3);
        const char *connection = header(data, "connection", &value_length);
        c->close = value_length >= 5 && !strncasecmp(connection, "close", 5);
        const char *id = header(data, "x-request-id", &value_length);
        end[2] = last;
        if (chunked) {
            ssize_t found = join_chunks(data + head_length, length - head_length, &body_length);
            taken = found < 0 ? 0 : head_length + found;
        } else taken = length < head_length + body_length ? 0 : head_length + body_length;
        if (!taken) {
            if (wants_continue && !c->continued && length == head_length)
                c->continued = put(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
            break;
        }
        c->continued = false;
        c->in.offset += taken;
        char *line_end = memmem(data, head_length, "\r\n", 2);
        *line_end = 0;
        uint32_t sequence = c->sequence;
        route(c, data, data + head_length, body_length, id, value_length);
        if (c->sequence != sequence) return;
        c->first_ns = c->last_ns; /* of a request that came in the same packets */
        if (!c->busy && c->close && !c->blocked) return hang_up(c);
    }
    if (c->in.offset == c->in.length) c->in.offset = c->in.length = 0;
}

static void receive(struct connection *c) {
    if (c->in.capacity - c->in.length < 4096) {
        if (c->in.offset) { /* what was answered makes room first */
            memmove(c->in.data, c->in.data + c->in.offset, c->in.length -= c->in.offset);
            c->in.offset = 0;
        }
        if (c->in.length > MAX_REQUEST) return hang_up(c);
        c->in.capacity = c->in.capacity * 2 + 8192;
        c->in.data = grow(c->in.data, c->in.capacity + 1); /* and a zero, which ends every number */
    }
    char control[128];
    struct iovec part = {c->in.data + c->in.length, c->in.capacity - c->in.length};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t got = recvmsg(c->fd, &message, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) return hang_up(c);
    int64_t at = 0;
    for (struct cmsghdr *m = CMSG_FIRSTHDR(&message); m; m = CMSG_NXTHDR(&message, m))
        if (m->cmsg_level == SOL_SOCKET && m->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec t;
            memcpy(&t, CMSG_DATA(m), sizeof t);
            at = t.tv_sec * 1000000000ll + t.tv_nsec;
        }
    c->kernel_time = at != 0;
    without_kernel_time += !at;
    if (!at) at = now_ns();
    if (c->in.length == c->in.offset && !c->continued) c->first_ns = at;
    c->last_ns = at;
    c->in.data[c->in.length += got] = 0;
    if (!c->busy) parse(c);
}

/* ---- The loop ---- */

static void wait_for(int64_t timeout_ns) {
    struct epoll_event events[512];
    struct timespec timeout = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    int64_t before = timeout_ns ? now_ns() : 0;
    int count = syscall(SYS_epoll_pwait2, epoll_fd, events, 512, &timeout, NULL, 0);
    if (count < 0 && errno == ENOSYS) count = epoll_wait(epoll_fd, events, 512, (timeout_ns + 999999) / 1000000);
    if (before && first_request_ns) idle_ns += now_ns() - before;
    for (int i = 0; i < count; i++) {
        struct connection *c = events[i].data.ptr;
        if (!c) {
            accept_all();
            continue;
        }
        if (c->fd >= 0 && events[i].events & EPOLLOUT) flush(c);
        if (c->fd >= 0 && events[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) receive(c);
    }
}

static void stall(void) {
    for (int i = 0; i < stall_count; i++) {
        if (stalls[i].from || requests < stalls[i].after) continue;
        struct timespec length = {stalls[i].length / 1000000000, stalls[i].length % 1000000000};
        stalls[i].from = now_ns();
        nanosleep(&length, NULL);
        stalls[i].to = now_ns();
    }
}

static void run(void) {
    while (!stopping) {
        stall();
        if (unlimited) {
            for (int i = 0; i < 256 && ring_length; i++) {
                struct due item = ring_pop();
                if (item.sequence == item.connection->sequence) advance(item.connection);
            }
            wait_for(ring_length ? 0 : 100000000);
            continue;
        }
        int64_t now = now_ns();
        for (int i = 0; i < 256 && heap_length && heap[0].at <= now; i++) {
            struct due item = heap_pop();
            if (item.sequence == item.connection->sequence) advance(item.connection);
        }
        int64_t left = heap_length ? heap[0].at - now_ns() : 100000000;
        wait_for(left < 0 ? 0 : left > 100000000 ? 100000000 : left);
    }
}

static void report(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double cpu = usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    int64_t span = last_end_ns - first_request_ns;
    printf("{\"requests\":%llu,\"completed\":%llu,\"tokens\":%llu,\"connections\":%d,\"cpu_s\":%.3f,\"span_s\":%.6f,"
           "\"idle_share\":%.4f,\"blocked_sends\":%llu,\"without_kernel_time\":%llu,\"stalls\":[",
           (unsigned long long)requests, (unsigned long long)completed, (unsigned long long)tokens_sent, connections_made,
           cpu, span / 1e9, span > 0 ? (double)idle_until_end_ns / span : 0, (unsigned long long)blocked_sends,
           (unsigned long long)without_kernel_time);
    for (int i = 0; i < stall_count; i++)
        printf("%s[%lld,%lld]", i ? "," : "", (long long)stalls[i].from, (long long)stalls[i].to);
    printf("]}\n");
    if (log_file) fclose(log_file);
}

static void on_signal(int number) {
    (void)number;
    stopping = 1;
}

static void listen_on(void) {
    int on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (shared) setsockopt(listen_fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    setsockopt(listen_fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on); /* connections inherit it, with no packet missed */
    if (bind(listen_fd, (struct sockaddr *)&address, sizeof address) || listen(listen_fd, 16384)) die("bind");
    getsockname(listen_fd, (struct sockaddr *)&address, &length);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &event);
    printf("listening %d\n", ntohs(address.sin_port));
    fflush(stdout);
}

static void options(int count, char **values) {
    for (int i = 1; i < count; i++) {
        const char *name = values[i];
        if (!strcmp(name, "--unlimited") || !strcmp(name, "--shared")) {
            *(name[2] == 'u' ? &unlimited : &shared) = true;
            continue;
        }
        if (i + 1 == count) fprintf(stderr, "%s: unknown, or lacks a value\n", name), exit(2);
        const char *value = values[++i];
        if (!strcmp(name, "--port")) port = atoi(value);
        else if (!strcmp(name, "--ttft-ms")) ttft_ns = atof(value) * 1e6;
        else if (!strcmp(name, "--itl-ms")) itl_ns = atof(value) * 1e6;
        else if (!strcmp(name, "--tokens")) default_tokens = atoi(value);
        else if (!strcmp(name, "--model") && strlen(value) < 128) model = value;
        else if (!strcmp(name, "--header") && strlen(value) < 512) extra_header = value;
        else if (!strcmp(name, "--stall") && stall_count < MAX_STALLS && strchr(value, ',')) {
            stalls[stall_count].after = strtoull(value, NULL, 10);
            stalls[stall_count++].length = atof(strchr(value, ',') + 1) * 1e9;
        } else if (!strcmp(name, "--log")) {
            if (!(log_file = fopen(value, "wb"))) die(value);
            setvbuf(log_file, NULL, _IOFBF, 1 << 20);
        } else fprintf(stderr, "%s %s: unknown or not possible\n", name, value), exit(2);
    }
}

int main(int count, char **values) {
    options(count, values);
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    prctl(PR_SET_TIMERSLACK, 1ul);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    listen_on();
    run();
    report();
    return 0;
}
