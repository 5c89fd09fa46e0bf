"""`python -m tests.cluster up|down`: the cluster of `make cluster`."""

import sys

from tests.cluster import dev
from tests.cluster.place import NoCluster


def main(arguments: list[str]) -> int:
    try:
        if arguments == ["up"]:
            dev.up()
            print("The cluster is up. Now type:  . .cluster/env")
        elif arguments == ["down"]:
            dev.down()
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except (NoCluster, dev.KubectlFailed) as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
