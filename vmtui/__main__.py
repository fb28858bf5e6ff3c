from vmtui.cli import main

main()
