// Runs goo_compile.py in Pyodide: node goo_bytecode.mjs PYODIDE_FOLDER GOO_COMPILE FOLDER
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [pyodideFolder, program, folder] = process.argv.slice(2);
const { loadPyodide } = await import(pathToFileURL(`${pyodideFolder}/pyodide.mjs`));
const python = await loadPyodide({ env: { PYTHONHASHSEED: "0" } });
python.FS.mkdir("/work");
python.FS.mount(python.FS.filesystems.NODEFS, { root: folder }, "/work");
python.globals.set("source", readFileSync(program, "utf8"));
python.runPython(`
import sys
sys.argv = ["goo_compile.py", "/work"]
exec(compile(source, "goo_compile.py", "exec"), {"__name__": "__main__"})
`);
