# Sourced by the scripts beside it: `install_into FOLDER EXTRA` makes a virtual environment that has this project.

find_python() {
    for name in "${PYTHON:-}" python3.13 python3.12 python3.11 python3; do
        if [ -n "$name" ] && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "error: Python 3.11 or newer is needed; found $(python3 --version 2>&1). Set PYTHON=/path/to/python3" >&2
    return 2
}

install_into() {
    local folder=$1 extra=$2 python stamp wanted
    python=$(find_python)
    stamp="$folder/.installed-$extra"
    wanted=$(cksum < pyproject.toml)
    if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    [ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
    echo "installing into $folder (a few minutes the first time) ..." >&2
    # torch first and alone: a build without CUDA is enough, and what is installed is not replaced by a newer one
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "torch>=2.11,<=2.13.0"
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[$extra]"
    echo "$wanted" > "$stamp"
}
