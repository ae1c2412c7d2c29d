/* What a program's own resolver says: "NAME" or "NAME 4" or "NAME 6"; prints addresses, or the error. */
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
	struct addrinfo hints, *found, *each;
	char text[INET6_ADDRSTRLEN];
	int error;

	if (argc < 2)
		return 2;
	memset(&hints, 0, sizeof hints);
	hints.ai_socktype = SOCK_STREAM;
	hints.ai_family = argc < 3 ? AF_UNSPEC : argv[2][0] == '4' ? AF_INET : AF_INET6;
	error = getaddrinfo(argv[1], NULL, &hints, &found);
	if (error) {
		printf("error: %s\n", gai_strerror(error));
		return 1;
	}
	for (each = found; each; each = each->ai_next) {
		const void *address = each->ai_family == AF_INET
			? (const void *)&((struct sockaddr_in *)each->ai_addr)->sin_addr
			: (const void *)&((struct sockaddr_in6 *)each->ai_addr)->sin6_addr;
		printf("%s\n", inet_ntop(each->ai_family, address, text, sizeof text));
	}
	return 0;
}
