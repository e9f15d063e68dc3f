# The virtual environments of contrib/run and contrib/check: where they are, whether they still fit,
# how they are made. Sourced by these two, never run. Knows nothing of what is done in them.
#
# An environment holds the packages that pyproject.toml asks for; prochist itself is a line in a
# .pth file, so that the code is always the checkout's present code and nothing is ever written into
# the checkout. Root's leavings there would be in the way of the ordinary user who comes next.

say() { printf '%s: %s\n' "${0##*/}" "$1" >&2; }

fail() { # MESSAGE HINT
    printf 'Error: %s\nHint: %s\n' "$1" "$2" >&2
    exit 3
}

# Print the real path of the checkout that the script SELF belongs to (SELF may be a symbolic link).
checkout_of() { # SELF
    local self=$1
    [[ ! -L $self ]] || self=$(readlink -f -- "$self")
    [[ $self == */* ]] || self=./$self
    CDPATH='' cd -- "${self%/*}/.." && pwd -P
}

# Set `places` to where an environment of KIND may be, best first: next to the checkout; where that
# directory is not ours to write, the cache directory of this user.
find_places() { # KIND
    local cache=/var/cache
    ((EUID == 0)) || cache=${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}
    local key=${checkout//\//%}
    ((${#key} < 200)) || key=$(printf %s "$checkout" | cksum | tr ' ' -)
    places=("$checkout.$1" "$cache/prochist/$key.$1")
}

# Whoever can write the checkout decides what runs in it anyway; a third user, who could have put a
# directory of the right name into a shared one like /tmp, does not.
trusted() { # DIRECTORY
    [[ ! -O $1 ]] || return 0
    local owner
    owner=$(stat -c %u -- "$1" 2>/dev/null) || return 1
    [[ $owner == 0 || $owner == "$(stat -c %u -- "$checkout")" ]]
}

# Whether DIRECTORY is ours to replace, or can be made. Root does not take over what belongs to
# somebody else: what it left in there could not be removed by its owner.
makeable() { # DIRECTORY
    if [[ -e $1 || -L $1 ]]; then [[ -d $1 && -O $1 && -w ${1%/*} ]]; else
        [[ $1 == "$checkout".* ]] || (umask 022 && mkdir -p -- "${1%/*}") 2>/dev/null
        [[ -w ${1%/*} ]]
    fi
}

# Set `place` to the first of `places` that can be written.
choose_place() {
    for place in "${places[@]}"; do
        ! makeable "$place" || return 0
    done
    fail "no place for a virtual environment: neither ${places[0]} nor ${places[1]} can be written" \
        "make ${places[1]%/*} writable, or set XDG_CACHE_HOME"
}

# What an environment says about itself: the checkout that it serves, then its pyproject.toml.
# Reads with builtins only: this is what every start of contrib/run waits for.
fits() { # ENVIRONMENT
    [[ -x $1/bin/python && -r $1/stamp ]] && trusted "$1" || return 1
    local stamp project
    IFS= read -r -d '' stamp <"$1/stamp" || true
    IFS= read -r -d '' project <"$checkout/pyproject.toml" || true
    [[ $stamp == "$checkout"$'\n'"$project" ]]
}

# Set `python` to an interpreter that is new enough: python3 if it is, else the newest that is found.
find_python() {
    local name
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        python=$("$name" -I -c 'import os, sys
if sys.version_info < (3, 11): sys.exit(1)
print(os.path.realpath(sys.executable))' 2>/dev/null) && return 0
    done
    if name=$(python3 --version 2>/dev/null); then
        fail "prochist needs Python 3.11 or newer; this is $name" \
            "install a newer Python beside it: it is found as python3.11 ... python3.14"
    fi
    fail "python3 was not found" "apt-get install python3 python3-venv"
}

# Print what pyproject.toml asks for: the dependencies, and those of the dependency group GROUP.
requirements() { # PYTHON GROUP
    "$1" -I -c 'import sys, tomllib
with open(sys.argv[1], "rb") as file: project = tomllib.load(file)
def group(name):
    for item in project["dependency-groups"][name]:
        if isinstance(item, str): yield item
        else: yield from group(item["include-group"])
print(*project["project"]["dependencies"], *(group(sys.argv[2]) if sys.argv[2] else ()), sep="\n")' \
        "$checkout/pyproject.toml" "$2"
}

# The line of the .pth file that keeps compiled modules out of the checkout, also those of a Python that
# is started with -I and so ignores PYTHONPYCACHEPREFIX, as the receiver is.
bytecode='import os, sys; sys.pycache_prefix = os.environ.get("PYTHONPYCACHEPREFIX") or sys.prefix + "/pycache"'

# Fill ENVIRONMENT.new.XXXXXX and give it its name last, so that an interrupted set-up leaves nothing
# that looks finished, and a failed one leaves the environment before it as it was.
build_environment() ( # ENVIRONMENT PYTHON GROUP
    umask 022
    local environment=$1 python=$2 group=$3 new wanted had='' began=$SECONDS
    wanted=$(requirements "$python" "$group") || fail "$checkout/pyproject.toml cannot be read" "git status"
    wanted=$checkout$'\n'$wanted
    if [[ -O $environment && -x $environment/bin/python && -r $environment/wanted ]]; then
        IFS= read -r -d '' had <"$environment/wanted" || true
    fi
    if [[ $had != "$wanted" ]]; then
        if ! "$python" -I -c 'import ensurepip, venv' 2>/dev/null; then
            local package=python3-venv
            [[ $python -ef $(command -v python3) ]] || package=${python##*/}-venv
            fail "$python cannot make a virtual environment" "apt-get install $package"
        fi
        rm -rf -- "$environment".new.??????
        new=$(mktemp -d -- "$environment.new.XXXXXX") || exit 3
        trap 'rm -rf -- "$new"' EXIT
        trap 'exit 130' INT
        trap 'exit 143' TERM
        trap 'exit 129' HUP
        chmod 755 -- "$new"
        say "making a virtual environment in $environment (only the first time) ..."
        "$python" -I -m venv -- "$new" || fail "$python could not make a virtual environment in $new" \
            "see the lines above: a full disk, or a broken Python"
        printf '%s\n' "$wanted" | tail -n +2 >"$new/requirements.txt"
        "$new/bin/python" -I -m pip --disable-pip-version-check --quiet --no-input install --retries 2 \
            --requirement "$new/requirements.txt" || fail "the packages that prochist needs could not be installed" \
            "see pip's lines above; without the network, PIP_FIND_LINKS names a directory of wheels"
        "$new/bin/python" -I -c 'import sys, sysconfig
with open(sysconfig.get_path("purelib") + "/prochist.pth", "w") as file: print(*sys.argv[1:], sep="\n", file=file)' \
            "$checkout" "$bytecode"
        printf '%s\n' 'import sys' 'from prochist.cli.main import main' 'sys.exit(main())' >"$new/bin/prochist"
        printf %s "$wanted" >"$new/wanted"
        if [[ -e $environment ]]; then
            rm -rf -- "$environment.old"
            mv -T -- "$environment" "$environment.old"
        fi
        mv -T -- "$new" "$environment"
        rm -rf -- "$environment.old"
        say "ready after $((SECONDS - began)) s"
    fi
    # Renamed into place, too: a start that reads it meanwhile sees the old stamp or the new one.
    { printf '%s\n' "$checkout" && cat -- "$checkout/pyproject.toml"; } >"$environment/stamp.new"
    mv -T -- "$environment/stamp.new" "$environment/stamp"
)

# Make ENVIRONMENT fit, unless somebody else does so first. The lock is the checkout's directory
# itself: no lock file is left behind. Where a file system refuses the lock, the renames have to do.
make_environment() { # ENVIRONMENT PYTHON GROUP
    local lock
    exec {lock}<"$checkout"
    if ! flock -n "$lock"; then
        say "waiting for another set-up of $checkout ..."
        flock -w 300 "$lock" || say "going on without waiting any longer"
    fi
    fits "$1" || build_environment "$1" "$2" "$3" || return
    exec {lock}<&-
}
