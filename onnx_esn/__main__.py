"""python -m onnx_esn …"""

from onnx_esn.cli import main

main()
