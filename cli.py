"""Run the command line from a checkout: python cli.py …"""

from onnx_esn.cli import main

main()
