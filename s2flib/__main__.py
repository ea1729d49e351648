from s2flib.cli.app import main

main()
