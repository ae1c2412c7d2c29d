/* A web server that ends as a good one does: `server PORT`, TCP and UDP.
 *
 * GET /        -> its host name and the client's address: "web-1 192.0.2.7\n"
 * GET /MILLIS  -> the same, so many milliseconds later
 * A datagram   -> the same answer
 *
 * `server check PORT` succeeds if it answers: a health check without a resolver.
 *
 * After SIGTERM it takes nobody new but who has knocked already, answers what is under way, and tells clients with
 * their next answer that it closes. It exits when all have gone. START_DELAY: milliseconds before it listens.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CLIENTS 2000
struct client { int fd; long due; int got, last, closing; char peer[INET_ADDRSTRLEN], in[2048]; };
static struct client clients[CLIENTS];
static struct pollfd polls[CLIENTS + 2];
static int count, listener, datagrams;
static volatile sig_atomic_t stops;
static char host[256];

static void stop(int signal) { (void)signal; stops = 1; }
static long now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000 + t.tv_nsec / 1000000; }
static void drop(int n) { close(clients[n].fd); clients[n] = clients[--count]; }

static void take(void) {
    struct sockaddr_in from;
    socklen_t size = sizeof from;
    while (count < CLIENTS) {
        int fd = accept4(listener, (struct sockaddr *)&from, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        struct client *c = &clients[count++];
        memset(c, 0, sizeof *c);
        c->fd = fd;
        inet_ntop(AF_INET, &from.sin_addr, c->peer, sizeof c->peer);
    }
}

static void answer(struct client *c) {
    char body[300], head[500];
    int close = c->last || stops, length = snprintf(body, sizeof body, "%s %s\n", host, c->peer);
    int bytes = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s", length,
                         close ? "Connection: close\r\n" : "", body);
    if (write(c->fd, head, bytes) != bytes) c->closing = 1;
    if (close) { shutdown(c->fd, SHUT_WR); c->closing = 1; }
    c->due = 0; c->got = 0;
}

/* 0: it has gone. */
static int hear(struct client *c) {
    int got = read(c->fd, c->in + c->got, sizeof c->in - 1 - c->got);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 1;
    if (got <= 0) return 0;
    if (c->closing) return 1;
    c->got += got;
    c->in[c->got] = 0;
    if (!strstr(c->in, "\r\n\r\n")) return c->got < (int)sizeof c->in - 1;
    c->last = strcasestr(c->in, "Connection: close") || strstr(c->in, "HTTP/1.0");
    long wait = strncmp(c->in, "GET /", 5) ? 0 : atol(c->in + 5);
    if (wait) c->due = now() + wait; else answer(c);
    return 1;
}

static void datagram(void) {
    char in[2048], out[300];
    struct sockaddr_in from;
    socklen_t size = sizeof from;
    if (recvfrom(datagrams, in, sizeof in, 0, (struct sockaddr *)&from, &size) < 0) return;
    char peer[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, &from.sin_addr, peer, sizeof peer);
    sendto(datagrams, out, snprintf(out, sizeof out, "%s %s\n", host, peer), 0, (struct sockaddr *)&from, size);
}

static int check(int port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    char in[512];
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (void *)&at, sizeof at)) return 1;
    if (write(fd, "GET / HTTP/1.0\r\n\r\n", 18) != 18) return 1;
    return read(fd, in, sizeof in) <= 0;
}

int main(int argc, char **argv) {
    if (argc > 2 && !strcmp(argv[1], "check")) return check(atoi(argv[2]));
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(argc > 1 ? argv[1] : "8080"))};
    struct sigaction on = {.sa_handler = stop};
    int yes = 1;
    sigaction(SIGTERM, &on, NULL);
    signal(SIGPIPE, SIG_IGN);
    gethostname(host, sizeof host - 1);
    if (getenv("START_DELAY")) usleep(atol(getenv("START_DELAY")) * 1000);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    datagrams = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (bind(listener, (void *)&at, sizeof at) || listen(listener, 1024) || bind(datagrams, (void *)&at, sizeof at)) {
        perror("listen");
        return 1;
    }
    while (listener >= 0 || count) {
        if (stops && listener >= 0) {
            take();
            close(listener);
            listener = -1;
        }
        long next = -1, time = now();
        polls[0] = (struct pollfd){listener, POLLIN, 0};
        polls[1] = (struct pollfd){datagrams, POLLIN, 0};
        for (int n = 0; n < count; n++) {
            polls[n + 2] = (struct pollfd){clients[n].fd, POLLIN, 0};
            if (clients[n].due && (next < 0 || clients[n].due < next)) next = clients[n].due;
        }
        int before = count;
        if (poll(polls, before + 2, next < 0 ? 1000 : next > time ? next - time : 0) < 0) continue;
        if (polls[1].revents) datagram();
        time = now();
        for (int n = before - 1; n >= 0; n--) {
            struct client *c = &clients[n];
            if (c->due && c->due <= time) answer(c);
            if (polls[n + 2].revents && !hear(c)) drop(n);
        }
        if (polls[0].revents) take();
    }
    return 0;
}
